"""The web application: our routes on the bot's app, and the outermost middleware."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import BaseRoute, Match, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipecat_base import LAUNCHER
from pipecat_base.bot.web_app import bots_app
from pipecat_base.config.hosts import HOST_HEADERS
from pipecat_base.errors import Malformed, Refusal, Starting
from pipecat_base.logs.logger import logger
from pipecat_base.server.error_responses import (
    ON_REFUSAL,
    client_disconnected,
    refuse,
    request_line,
    send_refusal,
    session_id_in,
    session_log_context,
)
from pipecat_base.server.paths import POD, PROBES, STATUS
from pipecat_base.server.request_path import PathSet
from pipecat_base.server.startup_problem import PAGE_HEADERS, StartupProblem

POD_PATHS = PathSet(POD, below=True)


def build(routes: Sequence[BaseRoute], missing: Sequence[BaseRoute]) -> Starlette:
    """Put ``routes`` before the bot's own on its app, and ``missing`` after them.

    A bot that did not import ``pipecatcloud_system`` gets a plain Starlette: FastAPI's import is a third of the
    start-up time. If it imports that module later, in a session, its routes are served from then on.
    """
    bot_app = bots_app()
    app: Starlette = Starlette() if bot_app is None else bot_app
    # As the default, not at the end: routes may be added to the bot's app in a session.
    rest = Router(missing, redirect_slashes=False, default=app.router.default)
    app.router.default = rest if bot_app is not None else _late_routes(rest)
    app.router.routes[:0] = routes
    app.add_exception_handler(Refusal, refuse)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, client_disconnected)
    return app


def build_for_workers(
    routes: Sequence[BaseRoute],
    missing: Sequence[BaseRoute],
    bots: ASGIApp,
    *,
    has_app: bool,
    passed_on: Sequence[str],
) -> Starlette:
    """Build the application for a bot in another process.

    Args:
        missing: Served only if the bot has no app.
        bots: Proxies to the application in the bot's process.
        has_app: True if the bot's app serves everything but ``routes``, so also other methods of their paths.
        passed_on: Paths always served in the other process.
    """
    app = Starlette()
    rest = Router([*routes, *missing], redirect_slashes=False, default=app.router.default)
    elsewhere = PathSet(passed_on)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        is_ours = any(route.matches(scope)[0] is Match.FULL for route in routes)
        is_bots = not is_ours and (has_app or scope["path"] in elsewhere)
        await (bots if is_bots else rest)(scope, receive, send)

    app.router.default = serve
    app.add_exception_handler(Refusal, refuse)  # type: ignore[arg-type]
    app.add_exception_handler(ClientDisconnect, client_disconnected)
    return app


class EntryMiddleware:
    """Outermost: adds the lifespans' state, the session's id on log lines, and the access log.

    uvicorn's own access log is off: it writes query strings, and with them bodies and tokens.

    Args:
        startup_wait: Seconds that a request waits for the bot's set-up. The platform's own gateway retries.
        polled: Paths that pages request all the time, or prefixes of paths if they end with a slash.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        startup_wait: float = 0.0,
        polled: Collection[str] = (),
        on_refusal: Callable[[Refusal], None] = lambda refusal: None,
    ) -> None:
        self._app = app
        self._on_refusal = on_refusal
        self._opened = asyncio.Event()
        self._startup_wait = startup_wait
        self._polled = polled
        self._state: dict[str, Any] = {}
        self._problem: StartupProblem | None = None

    def swap(self, other: EntryMiddleware) -> None:
        self._app = other._app

    def show_problem(self, problem: StartupProblem) -> None:
        """Until the bot is set up, answer every request with 503 and the reason; ``/`` shows the error page."""
        self._problem = problem

    def open(self, state: Mapping[str, Any]) -> None:
        """Serve requests: the bot is set up, and its lifespans yielded ``state``."""
        self._state = dict(state)
        self._opened.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        is_refused = False

        def note_refusal(refusal: Refusal) -> None:
            nonlocal is_refused
            is_refused = True
            self._on_refusal(refusal)

        scope[ON_REFUSAL] = note_refusal
        try:
            POD_PATHS.check_slashes(scope["raw_path"])
        except Malformed as refusal:
            await send_refusal(refusal, scope, receive, send)
            return
        if not await self._is_open():
            await self._turn_away(scope, receive, send)
            return
        if self._state:
            scope.setdefault("state", {}).update(self._state)
        if scope["type"] == "http":
            await self._serve(scope, receive, send, lambda: is_refused)
        else:
            await self._app(scope, receive, send)

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        problem = self._problem or StartupProblem("The bot is still starting.")
        if self._problem is not None and scope["type"] == "http" and scope["method"] == "GET":
            headers = Headers(scope=scope)
            problem = problem.for_visitor(value for name in HOST_HEADERS for value in headers.getlist(name))
            headers_of_503 = Starting(problem.reason).headers(LAUNCHER)
            if scope["path"] == "/":
                await HTMLResponse(problem.as_page(), 503, {**headers_of_503, **PAGE_HEADERS})(scope, receive, send)
                return
            if scope["path"] == STATUS:
                await JSONResponse(problem.as_answer(), 503, headers_of_503)(scope, receive, send)
                return
        await send_refusal(Starting(problem.reason), scope, receive, send)

    async def _is_open(self) -> bool:
        if not self._opened.is_set() and self._startup_wait and self._problem is None:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._opened.wait(), self._startup_wait)
        return self._opened.is_set()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, was_refused: Callable[[], bool]) -> None:
        started = time.monotonic()
        status = 500
        session_id = session_id_in(scope["headers"])

        async def send_and_note(message: Message) -> None:
            nonlocal status, session_id
            if message["type"] == "http.response.start":
                status = message["status"]
                session_id = session_id or session_id_in(message["headers"])
            await send(message)

        with session_log_context(session_id):
            try:
                await self._app(scope, receive, send_and_note)
            finally:
                # The response has the id if it was made for this request.
                with session_log_context(session_id):
                    is_quiet = was_refused() or (status < 400 and self._is_polled(scope["path"]))
                    level = "TRACE" if is_quiet else "INFO"
                    milliseconds = (time.monotonic() - started) * 1000
                    logger.log(level, f"{request_line(scope)} {status} in {milliseconds:.0f} ms")

    def _is_polled(self, path: str) -> bool:
        return path in self._polled or any(path.startswith(p) for p in self._polled if p.endswith("/") and p != "/")


def _late_routes(rest: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await (bots_app() or rest)(scope, receive, send)

    return serve
