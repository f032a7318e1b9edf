"""Responses to refused requests, and how requests appear in the log."""

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

from pipecat_base import LAUNCHER
from pipecat_base.errors import Refusal
from pipecat_base.logs.escaping import LONGEST_VALUE, logged
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID, SESSION_ID_LENGTH, STREAMS

ON_REFUSAL = "pipecat_base.on_refusal"  # scope key: a callback for the refusal of this request
MAX_METHOD_CHARACTERS = 32
# A path up to its token, however it is spelled: a token in a mistyped path is still valid.
TOKEN_PATH = re.compile(rf"(?is).*?[/\\]\W*(?:{'|'.join(path[1:] for path in STREAMS)})\W*?[/\\]")


async def refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    """Log a refusal and make its response; a WebSocket is answered at once, before it is accepted."""
    if refusal.session_id is None and refusal.field != SESSION_ID:
        refusal.session_id = session_id_in(connection.scope["headers"])
    connection.scope.get(ON_REFUSAL, _ignore)(refusal)
    with session_log_context(refusal.session_id):
        line = f"Refused {request_line(connection.scope)}: {refusal.code}: {refusal.log_text()}"
        logger.log(refusal.log_level, line)
    response = JSONResponse(refusal.body(), refusal.status, refusal.headers(LAUNCHER))
    if not isinstance(connection, WebSocket):
        return response
    await connection.send_denial_response(response)
    return None


def _ignore(refusal: Refusal) -> None: ...


async def send_refusal(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    connection = WebSocket(scope, receive, send) if scope["type"] == "websocket" else HTTPConnection(scope)
    response = await refuse(connection, refusal)
    if response is not None:
        await response(scope, receive, send)


def client_disconnected(request: HTTPConnection, error: Exception) -> Response:
    logger.info("The caller disconnected before its request was complete")
    return Response(status_code=400)


def session_log_context(session_id: str | None) -> AbstractContextManager[None]:
    shown = session_id and logged(session_id, SESSION_ID_LENGTH)
    return logger.contextualize(session_id=shown) if shown else contextlib.nullcontext()


def session_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    wanted = SESSION_ID.encode()
    for name, value in headers:
        if name == wanted:
            return logged(value.decode("ascii", "backslashreplace"), SESSION_ID_LENGTH)
    return None


def request_line(scope: Scope) -> str:
    """Method and decoded path, escaped for logs, without the query or a token in the path."""
    path: str = scope["path"][: LONGEST_VALUE + 1].partition("?")[0]
    found = TOKEN_PATH.match(_decoded(path))
    shown = path if found is None else f"{found.group()}..."
    return f"{logged(scope.get('method', 'WebSocket'), MAX_METHOD_CHARACTERS)} {logged(shown)}"


def _decoded(path: str) -> str:
    while (decoded := unquote(path)) != path:
        path = decoded
    return path
