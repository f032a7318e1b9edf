"""Single-use WebSocket tokens, as pipecat's own runner makes them.

A token is ``<payload>.<signature>``: the payload is URL-safe base64 of ``{"exp": <Unix seconds>, "jti": <random>}``,
the signature its HMAC-SHA256 in hexadecimal. It is good for one connection; one with ``"sid"`` for that session alone.
What was used is known to this process: where a secret outlives it or is shared with others, a token can be used once
more in each, until it expires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

LIFETIME = 300
"""Seconds, as in pipecat's runner."""


class Tokens:
    """Mints and checks tokens.

    Args:
        secret: Shared by everyone who mints and checks; None for a random one of this process.
        clock: Unix time in seconds.
    """

    def __init__(self, secret: str | None, *, clock: Callable[[], float] = time.time) -> None:
        self._key = secret.encode(errors="surrogateescape") if secret is not None else secrets.token_bytes(32)
        self._clock = clock
        self._used: dict[str, float] = {}

    def mint(self, lifetime: int = LIFETIME, *, session_id: str | None = None) -> str:
        """A new token, good for ``lifetime`` seconds; for this session alone, if it is named."""
        claims: dict[str, Any] = {"exp": int(self._clock()) + lifetime, "jti": secrets.token_hex(8)}
        if session_id is not None:
            claims["sid"] = session_id
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        return f"{payload}.{self._sign(payload)}"

    def is_good(self, token: str, session_id: str = "") -> bool:
        """Whether the token is ours, fits this session, has not expired and was not used before."""
        return self._expiry(token, session_id) is not None

    def consume(self, token: str, session_id: str = "") -> bool:
        """As :meth:`is_good`; from now on it was used."""
        expires = self._expiry(token, session_id)
        if expires is None:
            return False
        now = self._clock()
        self._used = {used: until for used, until in self._used.items() if until > now}
        self._used[token] = expires
        return True

    def _expiry(self, token: str, session_id: str) -> float | None:
        payload, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._sign(payload).encode(), signature.encode(errors="replace")):
            return None
        try:
            claims = json.loads(base64.urlsafe_b64decode(payload))
            expires = float(claims["exp"])
            if claims.get("sid", session_id) != session_id:
                return None
        except (binascii.Error, ValueError, TypeError, KeyError, AttributeError, OverflowError):
            return None
        is_good = expires > self._clock() and token not in self._used  # never of what is no number
        return expires if is_good else None

    def _sign(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode(errors="replace"), hashlib.sha256).hexdigest()
