"""``GET /pcc/capabilities``: the platform reads it once after each deployment.

``{"capabilities": {NAME: {"available": true} | {"available": false, "reason": "..."}}, "version": 1}``. The platform
refuses starts that need an unavailable capability.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import CAPABILITIES

VERSION = 1
MAX_CAPABILITIES = 64
MAX_NAME = 63
MAX_REASON = 256
MAX_BYTES = 16384
NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
METHODS = ("GET", "HEAD")


class Capabilities:
    """The document. ``reasons`` is slow (it imports sessions' modules), so the document is built once, on demand."""

    def __init__(self, reasons: Callable[[], Awaitable[Mapping[str, str | None] | None]]) -> None:
        self._reasons = reasons
        self._building: asyncio.Future[tuple[Mapping[str, str | None], bytes | None]] | None = None

    async def document(self) -> bytes | None:
        _, content = await self._built()
        return content

    async def reasons(self) -> Mapping[str, str | None] | None:
        """By capability: the reason why it is missing, or None. None without a document."""
        reasons, content = await self._built()
        return None if content is None else reasons

    async def why_not(self, name: str, *, unknown: str) -> str | None:
        """The reason why this capability is missing, or None; ``unknown`` if it is not in the document."""
        reasons, _ = await self._built()
        return reasons.get(name, unknown)

    async def _built(self) -> tuple[Mapping[str, str | None], bytes | None]:
        if self._building is None:
            self._building = asyncio.ensure_future(self._build())
        return await asyncio.shield(self._building)

    async def _build(self) -> tuple[Mapping[str, str | None], bytes | None]:
        try:
            found = await self._reasons()
            if found is None:  # another process has logged why
                return {}, None
            reasons = {name: reason and clean(reason) for name, reason in found.items()}
            return reasons, document(reasons)
        except Exception as error:
            logger.warning(f"Not reporting capabilities: {type(error).__name__}: {error}")
            return {}, None


def document(reasons: Mapping[str, str | None]) -> bytes:
    """Compact, sorted JSON. Raises ValueError beyond the platform's limits."""
    if len(reasons) > MAX_CAPABILITIES:
        raise ValueError(f"more than {MAX_CAPABILITIES} capabilities")
    for name in reasons:
        if len(name) > MAX_NAME or not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a capability")
    entries = {
        name: {"available": True} if reason is None else {"available": False, "reason": clean(reason)}
        for name, reason in reasons.items()
    }
    content = {"capabilities": entries, "version": VERSION}
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    if len(encoded) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES} bytes")
    return encoded


def clean(reason: str) -> str:
    """Convert to the platform's format: printable ASCII on one line, at most 256 characters, without brackets."""
    words = " ".join(reason.split()).replace("[", "(").replace("]", ")")
    shown = "".join(c if c.isprintable() else "?" for c in words.encode("ascii", "backslashreplace").decode())
    shown = shown or "unavailable"
    return shown if len(shown) <= MAX_REASON else f"{shown[: MAX_REASON - 3]}..."


class CapabilitiesRoute:
    """Middleware, so that no route of the bot can replace this path."""

    def __init__(self, app: ASGIApp, capabilities: Capabilities) -> None:
        self._app = app
        self._capabilities = capabilities

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != CAPABILITIES:
            await self._app(scope, receive, send)
            return
        content = await self._capabilities.document()
        method = scope["method"]
        headers = [(b"cache-control", b"no-store")]
        if content is None:
            status, content = 404, b""
        elif method not in METHODS:
            status, content = 405, b""
            headers.append((b"allow", ", ".join(METHODS).encode()))
        else:
            status = 200
            headers.append((b"content-type", b"application/json"))
        headers.append((b"content-length", str(len(content)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if method == "HEAD" else content})
