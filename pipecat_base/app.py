"""The web application: our routes on the bot's app, and what surrounds every request."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Match, Mount, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base import __version__
from pipecat_base.errors import Refusal, Starting
from pipecat_base.logs import logger
from pipecat_base.packages import BOTS_MODULE
from pipecat_base.routes.health import PROBES
from pipecat_base.routes.requests import SESSION_ID, SESSION_ID_LENGTH
from pipecat_base.routes.websocket import TOKEN_PATHS

LAUNCHER = f"pipecat-base/{__version__}"


def build(routes: Sequence[BaseRoute], missing: Sequence[BaseRoute]) -> Starlette:
    """Put ``routes`` before the bot's own on the app that it asked for, and ``missing`` after them.

    A bot that did not import ``pipecatcloud_system`` gets a plain Starlette: FastAPI's import is a third of the
    start-up time. Should it import that module later, in a session, its routes are served all the same.
    """
    bots_app = _bots_app()
    app: Starlette = Starlette() if bots_app is None else bots_app
    # As the default, not at the end: routes may be added to the bot's app in a session.
    rest = Router(missing, redirect_slashes=False, default=app.router.default)
    app.router.default = rest if bots_app is not None else _late_routes(rest)
    warn_of_clashes(routes, app.router.routes)
    app.router.routes[:0] = routes
    app.add_exception_handler(Refusal, refuse)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, gone)
    return app


class Entrance:
    """Surrounds every request: the state of lifespans, the session's id on log lines, the access log.

    uvicorn's own access log is off: it writes query strings, and with them bodies and tokens.

    Args:
        patience: Seconds that a request which comes too early waits. The platform's own gateway tries again.
        polled: Paths that pages ask for all the time.
    """

    def __init__(self, app: ASGIApp, *, patience: float = 0.0, polled: Collection[str] = ()) -> None:
        self._app = app
        self._opened = asyncio.Event()
        self._patience = patience
        self._polled = polled
        self._state: dict[str, Any] = {}

    def open(self, state: dict[str, Any]) -> None:
        """The bot is set up, and its own routes may count on its lifespans: ``state`` is what those have yielded."""
        self._state = state
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if not await self._is_open():
            await turn_away(Starting("The bot is still starting."), scope, receive, send)
            return
        if self._state:
            scope.setdefault("state", {}).update(self._state)
        if scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _is_open(self) -> bool:
        if not self._opened.is_set() and self._patience:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._opened.wait(), self._patience)
        return self._opened.is_set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        status = 500
        session_id = _session_id(scope["headers"])

        async def send_and_note(message: Message) -> None:
            nonlocal status, session_id
            if message["type"] == "http.response.start":
                status = message["status"]
                session_id = session_id or _session_id(message["headers"])
            await send(message)

        with _lines_of(session_id):
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                # An id that was minted for this request is known by its answer.
                with _lines_of(session_id):
                    level = "TRACE" if scope["path"] in self._polled and status == 200 else "INFO"
                    milliseconds = (time.monotonic() - started) * 1000
                    logger.log(level, f"{_request_line(scope)} {status} in {milliseconds:.0f} ms")


async def refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    """Answer a request that will not become a session; a WebSocket is answered before it is accepted."""
    if refusal.session_id is None and refusal.field != SESSION_ID:
        refusal.session_id = _session_id(connection.scope["headers"])
    with _lines_of(refusal.session_id):
        # A message may name what the caller has sent: it must not make a line of its own.
        reason = "".join(c if c.isprintable() else "?" for c in refusal.said_to_log())
        logger.log(refusal.log_level, f"Refused {_request_line(connection.scope)}: {refusal.code}: {reason}")
    response = JSONResponse(refusal.body(), refusal.status, refusal.headers(LAUNCHER))
    if not isinstance(connection, WebSocket):
        return response
    await connection.send_denial_response(response)
    return None


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


def bots_routes() -> list[BaseRoute]:
    """The bot's own, before ours are put before them."""
    app = _bots_app()
    return [] if app is None else list(app.router.routes)


def _bots_app() -> Any:
    return getattr(sys.modules.get(BOTS_MODULE), "app", None)


def _late_routes(rest: ASGIApp) -> ASGIApp:
    """The app that the bot asked for in a session, once it has; ``rest`` until then."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (_bots_app() or rest)(scope, receive, send)

    return serve


def warn_of_clashes(ours: Sequence[BaseRoute], theirs: Sequence[BaseRoute]) -> None:
    """Ask the bot's routes, those of routers inside them too, whether they would take a request that is ours."""
    for route in ours:
        path: str = getattr(route, "path", "")
        if "{" in path:
            continue
        for method in sorted(getattr(route, "methods", None) or {"WebSocket"}):
            kind = "websocket" if method == "WebSocket" else "http"
            scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": [], "path_params": {}}
            # A mount takes every path below it, as a site of static files at "/" does: that is no claim to this one.
            taken = [r for r in theirs if not isinstance(r, Mount) and r.matches(scope)[0] is Match.FULL]
            if taken and method != "HEAD":
                name = getattr(taken[0], "name", None) or "route"
                logger.warning(f"{path} is reserved for the launcher ({method}): your {name}() is not served there")


def _lines_of(session_id: str | None) -> AbstractContextManager[None]:
    return logger.contextualize(session_id=session_id) if session_id else contextlib.nullcontext()


def _session_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    wanted = SESSION_ID.encode()
    for name, value in headers:
        if name == wanted:
            return value.decode("latin-1")[:SESSION_ID_LENGTH]
    return None


def _request_line(scope: Scope) -> str:
    # The raw path: percent-encoding keeps line breaks out of the log. Never the query, nor a token in the path.
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("ascii", "replace").split("?")[0]
    for prefix in TOKEN_PATHS:
        path = f"{prefix}..." if path.startswith(prefix) else path
    return f"{scope.get('method', 'WebSocket')} {path}"
