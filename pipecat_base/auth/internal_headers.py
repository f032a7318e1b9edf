"""Headers that only the platform and a gateway may say to a pod: ids of sessions, limits, rooms, files of flows."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.auth.pod_token import has_token

PREFIXES = (b"x-daily-", b"x-pcc-", b"x-pipecat-")


class InternalHeaders:
    """Surrounds what callers reach without passing through the gateway: such headers of theirs are dropped.

    Args:
        token: The pod's: whoever has it may say them. None where nobody has.
    """

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode(errors="surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_token(scope, self._token):
            scope = {**scope, "headers": without_internal(scope["headers"])}
        await self._app(scope, receive, send)


def without_internal(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The others."""
    return [(name, value) for name, value in headers if not name.startswith(PREFIXES)]
