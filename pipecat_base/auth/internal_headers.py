"""Headers that only the platform and a gateway may send to a pod: session ids, limits, rooms, flow files."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

TOKEN_HEADER = "x-pipecat-pod-token"  # noqa: S105
PREFIXES = (b"x-daily-", b"x-pcc-", b"x-pipecat-")


class InternalHeaders:
    """Drops internal headers from callers without the pod's token; from every caller when it is None."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app = app
        self._token = None if token is None else token.encode(errors="surrogateescape")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_token(scope, self._token):
            scope = {**scope, "headers": without_internal(scope["headers"])}
        await self._app(scope, receive, send)


def without_internal(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in headers if not name.startswith(PREFIXES)]


def has_token(scope: Scope, token: bytes | None) -> bool:
    if token is None:
        return False
    given = [value for name, value in scope["headers"] if name == TOKEN_HEADER.encode()]
    return any(hmac.compare_digest(value, token) for value in given)
