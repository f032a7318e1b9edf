"""A bot that serves Media over QUIC itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pipecat_base.bot.arguments import Arguments
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import Closer


def served(namespace: str, port: int) -> tuple[dict[str, Any], asyncio.Event]:
    """The fields of its arguments, as pipecat's runner fills them, and what is set once it serves."""
    ready = asyncio.Event()
    values = {
        "host": "localhost",
        "port": port,
        "namespace": namespace,
        "serve": True,
        "bind": f"[::]:{port}",
        "ready_event": ready,
    }
    return values, ready


def tell_once(ready: asyncio.Event, arguments: Arguments, on_serving: Callable[[Sequence[str]], None]) -> Closer:
    """Call ``on_serving`` once it serves, with what pipecat has written into its arguments; ended by what is given."""

    async def tell() -> None:
        await ready.wait()
        on_serving(getattr(arguments, "cert_fingerprints", None) or [])

    telling = asyncio.ensure_future(tell())

    async def close(outcome: Outcome) -> None:
        telling.cancel()

    return close
