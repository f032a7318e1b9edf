"""Who may use the gateway: those who know one of its public keys."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.requests import HTTPConnection

from pipecat_base.errors import KeyMissing


class Keys:
    """Checks ``Authorization: Bearer KEY``, in a time that tells nothing of the keys.

    Args:
        keys: Empty lets everyone in.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key) for key in keys]

    def fit(self, connection: HTTPConnection) -> bool:
        """Whether this request has one, or needs none."""
        digest = _digest(bearer_of(connection) or "")
        matches = [hmac.compare_digest(digest, known) for known in self._digests]
        return any(matches) or not self._digests

    async def check(self, connection: HTTPConnection) -> None:
        """Refuse a request without one.

        Raises:
            KeyMissing: it has none, or a wrong one.
        """
        if not self.fit(connection):
            raise KeyMissing("Send a public API key: Authorization: Bearer KEY.", field="authorization")


def bearer_of(connection: HTTPConnection) -> str | None:
    """What follows ``Authorization: Bearer``, or None without it."""
    scheme, _, value = connection.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="replace")).digest()
