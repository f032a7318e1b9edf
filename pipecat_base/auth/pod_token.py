"""Limits the routes that start sessions to whoever has the pod's token: a gateway."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.errors import PodTokenMissing
from pipecat_base.server.error_responses import turn_away
from pipecat_base.server.request_path import PathSet

TOKEN_HEADER = "x-pipecat-pod-token"  # noqa: S105


class PodTokenGuard:
    """Surrounds the application.

    Args:
        token: None lets nobody in: a gateway in the same process does not come this way.
        paths: Those that are limited, and what is below them.
    """

    def __init__(self, app: ASGIApp, token: str | None, paths: tuple[str, ...]) -> None:
        self._app = app
        self._token = None if token is None else token.encode(errors="surrogateescape")
        self._limited = PathSet(paths, below=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in self._limited and not has_token(scope, self._token):
            reason = "This route is for the gateway"
            reason += ": POST /start instead." if self._token is None else ", which has the pod's token."
            refusal = PodTokenMissing(reason, field=TOKEN_HEADER)
            await turn_away(refusal, scope, receive, send)
        else:
            await self._app(scope, receive, send)


def has_token(scope: Scope, token: bytes | None) -> bool:
    """Whether the request has the pod's token; never where there is none."""
    if token is None:
        return False
    given = [value for name, value in scope["headers"] if name == TOKEN_HEADER.encode()]
    return any(hmac.compare_digest(value, token) for value in given)
