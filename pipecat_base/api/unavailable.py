"""Routes that are not served here, and WebSockets that lead nowhere: an answer that says why, and how to have them."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from pipecat_base.errors import NotServed


class UnavailableRoutes:
    """Come after the bot's own routes, so that a bot can serve these paths itself.

    Args:
        reasons: By path, what says why it is not served.
    """

    def __init__(self, reasons: dict[str, Callable[[], str]]) -> None:
        self._reasons = reasons

    def routes(self) -> list[BaseRoute]:
        """The routes to serve when no other one matches."""
        methods = ["GET", "POST", "PATCH"]
        paths: list[BaseRoute] = [Route(path, self.http, methods=methods) for path in self._reasons]
        return [*paths, WebSocketRoute("/{path:path}", self.websocket)]

    async def http(self, request: Request) -> Response:
        """404, with the reason."""
        raise NotServed(self._reasons[request.url.path]())

    async def websocket(self, websocket: WebSocket) -> None:
        """404 before accept: without one the server would say 403, which speaks of tokens."""
        raise NotServed("No WebSocket is served at this path: phones use /ws, other clients /ws-client.")
