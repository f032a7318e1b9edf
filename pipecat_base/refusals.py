"""Answers to requests that will not become a session, and what the log says of requests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import AbstractContextManager

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base import __version__
from pipecat_base.errors import Refusal
from pipecat_base.logs import logger
from pipecat_base.paths import SESSION_ID, SESSION_ID_LENGTH, TOKEN_PATHS

ON_REFUSAL = "pipecat_base.on_refusal"
"""In a scope: learns of its refusal."""
LAUNCHER = f"pipecat-base/{__version__}"


async def refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    """Answer a request that will not become a session; a WebSocket is answered before it is accepted."""
    if refusal.session_id is None and refusal.field != SESSION_ID:
        refusal.session_id = session_id_in(connection.scope["headers"])
    connection.scope.get(ON_REFUSAL, _nobody)(refusal)
    with lines_of(refusal.session_id):
        # A message may name what the caller has sent: it must not make a line of its own.
        reason = "".join(c if c.isprintable() else "?" for c in refusal.said_to_log())
        logger.log(refusal.log_level, f"Refused {request_line(connection.scope)}: {refusal.code}: {reason}")
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
    return logger.contextualize(session_id=session_id) if session_id else contextlib.nullcontext()


def session_id_in(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The session's id, as it came, for logs."""
    wanted = SESSION_ID.encode()
    for name, value in headers:
        if name == wanted:
            text = value.decode("latin-1")[:SESSION_ID_LENGTH]
            # Control characters of a terminal must not reach one (U+0080 to U+009F are some too).
            return "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return None


def request_line(scope: Scope) -> str:
    """Method and path, fit for logs."""
    # The raw path: percent-encoding keeps line breaks out of the log. Never the query, nor a token in the path.
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("ascii", "replace").split("?")[0]
    for prefix in TOKEN_PATHS:
        path = f"{prefix}..." if path.startswith(prefix) else path
    return f"{scope.get('method', 'WebSocket')} {path}"
