"""Fields of an ASGI scope, read from a socket's name and from a WebSocket handshake's headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def address(name: Any) -> tuple[str, int] | None:
    """Host and port of a socket's name; None for a Unix socket."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def subprotocols(values: Iterable[str]) -> list[str]:
    return [part.strip() for value in values for part in value.split(",")]
