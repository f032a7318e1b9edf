"""Single-use WebSocket tokens, in the format of pipecat's runner.

A token is ``<payload>.<signature>``: the payload is URL-safe base64 of ``{"exp": <Unix seconds>, "jti": <random>}``,
the signature its HMAC-SHA256 in hexadecimal. A ``"sid"`` binds it to one session. Used tokens are known to this process
only: where a secret is shared or outlives it, each process accepts a token once until it expires.
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

LIFETIME_SECONDS = 300


class Tokens:
    """Mints and checks tokens; without a secret, with a random one of this process."""

    def __init__(self, secret: str | None, *, clock: Callable[[], float] = time.time) -> None:
        self._key = secret.encode(errors="surrogateescape") if secret is not None else secrets.token_bytes(32)
        self._clock = clock
        self._used: dict[str, float] = {}

    def mint(self, lifetime: int = LIFETIME_SECONDS, *, session_id: str | None = None) -> str:
        claims: dict[str, Any] = {"exp": int(self._clock()) + lifetime, "jti": secrets.token_hex(8)}
        if session_id is not None:
            claims["sid"] = session_id
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
        return f"{payload}.{self._sign(payload)}"

    def is_valid(self, token: str, session_id: str = "") -> bool:
        return self._expiry(token, session_id) is not None

    def consume(self, token: str, session_id: str = "") -> bool:
        expires = self._expiry(token, session_id)
        if expires is None:
            return False
        now = self._clock()
        self._used = {used: until for used, until in self._used.items() if until > now}
        self._used[token] = expires
        return True

    def restore(self, token: str) -> None:
        """Accept a consumed token again: its connection began no session."""
        self._used.pop(token, None)

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
        is_valid = expires > self._clock() and token not in self._used  # False for NaN
        return expires if is_valid else None

    def _sign(self, payload: str) -> str:
        return hmac.new(self._key, payload.encode(errors="replace"), hashlib.sha256).hexdigest()
