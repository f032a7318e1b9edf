"""Routes that are off here, and unknown WebSocket paths: 404 with the reason and a remedy."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from pipecat_base.errors import NotServed


class UnavailableRoutes:
    """Placed after the bot's routes, so that a bot can serve these paths itself."""

    def __init__(self, reasons: dict[str, Callable[[], str]]) -> None:
        self._reasons = reasons

    def routes(self) -> list[BaseRoute]:
        methods = ["GET", "POST", "PATCH"]
        paths: list[BaseRoute] = [Route(path, self.http, methods=methods) for path in self._reasons]
        return [*paths, WebSocketRoute("/{path:path}", self.websocket)]

    async def http(self, request: Request) -> Response:
        raise NotServed(self._reasons[request.url.path]())

    async def websocket(self, websocket: WebSocket) -> None:
        # Otherwise the server would answer 403, which suggests a missing token.
        raise NotServed(
            "No WebSocket is served at this path: phones use /ws, other clients /ws-client, with a token in the path "
            "only if PIPECAT_WEBSOCKET_AUTH is token."
        )
