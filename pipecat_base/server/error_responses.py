"""Answers to requests that will not become a session, and what the log says of requests."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from urllib.parse import unquote

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.errors import LAUNCHER, Refusal
from pipecat_base.logs.escaping import LONGEST_VALUE, logged
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID, SESSION_ID_LENGTH, STREAMS

ON_REFUSAL = "pipecat_base.on_refusal"
"""In a scope: learns of its refusal."""
LONGEST_METHOD = 32
"""Characters of a request's method in the log."""
TOKEN_PATH = re.compile(rf"(?is).*?[/\\]\W*(?:{'|'.join(path[1:] for path in STREAMS)})\W*?[/\\]")
"""A path up to a token, however it is spelled: one that a typing mistake keeps from its route is still good."""


async def refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    """Answer a request that will not become a session; a WebSocket is answered before it is accepted."""
    if refusal.session_id is None and refusal.field != SESSION_ID:
        refusal.session_id = session_id_in(connection.scope["headers"])
    connection.scope.get(ON_REFUSAL, _nobody)(refusal)
    with lines_of(refusal.session_id):
        line = f"Refused {request_line(connection.scope)}: {refusal.code}: {refusal.log_text()}"
        logger.log(refusal.log_level, line)
    response = JSONResponse(refusal.body(), refusal.status, refusal.headers(LAUNCHER))
    if not isinstance(connection, WebSocket):
        return response
    await connection.send_denial_response(response)
    return None


def _nobody(refusal: Refusal) -> None: ...


async def turn_away(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Refuse a request that reaches no application."""
    connection = WebSocket(scope, receive, send) if scope["type"] == "websocket" else HTTPConnection(scope)
    response = await refuse(connection, refusal)
    if response is not None:
        await response(scope, receive, send)


def gone(request: HTTPConnection, error: Exception) -> Response:
    """The caller left before its body had come. Nobody reads this."""
    logger.info("The caller went away before its request had come")
    return Response(status_code=400)


def lines_of(session_id: str | None) -> AbstractContextManager[None]:
    """Log lines carry this id within, if there is one."""
    shown = session_id and logged(session_id, SESSION_ID_LENGTH)
    return logger.contextualize(session_id=shown) if shown else contextlib.nullcontext()


def session_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The session's id, as it came, for logs."""
    wanted = SESSION_ID.encode()
    for name, value in headers:
        if name == wanted:
            return logged(value.decode("ascii", "backslashreplace"), SESSION_ID_LENGTH)
    return None


def request_line(scope: Scope) -> str:
    """Method and path, decoded, fit for logs: never the query, nor a token in the path."""
    path: str = scope["path"][: LONGEST_VALUE + 1].partition("?")[0]
    found = TOKEN_PATH.match(_decoded(path))
    shown = path if found is None else f"{found.group()}..."
    return f"{logged(scope.get('method', 'WebSocket'), LONGEST_METHOD)} {logged(shown)}"


def _decoded(path: str) -> str:
    """Without percent-encoding, however often it was encoded."""
    while (decoded := unquote(path)) != path:
        path = decoded
    return path
