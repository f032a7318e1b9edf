"""API keys. Public ones start sessions and access those whose ids are known; private ones list and manage all."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Sequence

from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.errors import KeyMissing, KeyNotPrivate
from pipecat_base.server.error_responses import send_refusal
from pipecat_base.server.paths import CAPABILITIES


class Keys:
    """Checks ``Authorization: Bearer KEY`` in constant time; without any key, every request is allowed."""

    def __init__(self, public: Sequence[str], private: Sequence[str] = ()) -> None:
        self._public = [_digest(key) for key in public]
        self._private = [_digest(key) for key in private]

    @property
    def are_needed(self) -> bool:
        return bool(self._public or self._private)

    def allows(self, connection: HTTPConnection) -> bool:
        return not self.are_needed or _is_among(connection, [*self._public, *self._private])

    async def check(self, connection: HTTPConnection) -> None:
        if not self.allows(connection):
            raise KeyMissing("Send a public API key: Authorization: Bearer KEY.", field="authorization")

    async def check_private(self, connection: HTTPConnection) -> None:
        if not self.allows(connection):
            raise KeyMissing("Send a private API key: Authorization: Bearer KEY.", field="authorization")
        if self.are_needed and not _is_among(connection, self._private):
            raise KeyNotPrivate("This needs a private API key (PIPECAT_PRIVATE_API_KEYS).", field="authorization")


class KeyGuard:
    """Requires a key for the bot's own routes, except ``open_paths``, in which ``*`` matches anything."""

    def __init__(
        self, app: ASGIApp, keys: Keys, launcher_routes: Sequence[BaseRoute], open_paths: Collection[str]
    ) -> None:
        self._app = app
        self._keys = keys
        self._launcher_routes = launcher_routes
        self._open_paths = [re.compile(".*".join(map(re.escape, path.split("*"))), re.DOTALL) for path in open_paths]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._is_open(scope) or self._keys.allows(HTTPConnection(scope)):
            await self._app(scope, receive, send)
            return
        reason = "The bot's own routes need an API key here, unless PIPECAT_OPEN_ROUTES names them."
        await send_refusal(KeyMissing(reason, field="authorization"), scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path == CAPABILITIES or any(route.matches(scope)[0] is Match.FULL for route in self._launcher_routes):
            return True
        return any(pattern.fullmatch(path) for pattern in self._open_paths)


def bearer_of(connection: HTTPConnection) -> str | None:
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _is_among(connection: HTTPConnection, digests: Sequence[bytes]) -> bool:
    digest = _digest(bearer_of(connection) or "")
    matches = [hmac.compare_digest(digest, known) for known in digests]
    return any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
