"""Checks ``Origin`` of every WebSocket handshake (RFC 6455 section 10.2) against PIPECAT_ALLOWED_ORIGINS."""

from __future__ import annotations

from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.errors import Unauthorized
from pipecat_base.server.error_responses import send_refusal


class OriginGuard:
    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self._app = app
        self._origins = frozenset(origin.lower() for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            origin = HTTPConnection(scope).headers.get("origin", "").lower()
            if origin not in self._origins:
                refusal = Unauthorized("This origin is not in PIPECAT_ALLOWED_ORIGINS.", field="origin")
                await send_refusal(refusal, scope, receive, send)
                return
        await self._app(scope, receive, send)
