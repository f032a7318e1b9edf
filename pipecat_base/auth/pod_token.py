"""Limits the routes that start sessions to the gateway, which has the pod's token."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.auth.internal_headers import TOKEN_HEADER, has_token
from pipecat_base.errors import PodTokenMissing
from pipecat_base.server.error_responses import send_refusal
from pipecat_base.server.request_path import PathSet


class PodTokenGuard:
    """Guards ``paths`` with everything below them, and ``patterns``.

    None as ``token`` refuses every request; an in-process gateway bypasses this guard.
    """

    def __init__(self, app: ASGIApp, token: str | None, paths: tuple[str, ...], patterns: tuple[str, ...] = ()) -> None:
        self._app = app
        self._token = None if token is None else token.encode(errors="surrogateescape")
        self._limited = PathSet(paths, below=True)
        self._limited_patterns = PathSet(patterns)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        is_limited = path in self._limited or path in self._limited_patterns
        if is_limited and not has_token(scope, self._token):
            reason = "This route is for the gateway"
            reason += ": POST /start instead." if self._token is None else ", which has the pod's token."
            refusal = PodTokenMissing(reason, field=TOKEN_HEADER)
            await send_refusal(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)
