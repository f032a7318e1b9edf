"""Arguments of a bot that serves Media over QUIC itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from pipecat_base.bot.arguments import Arguments
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import Closer


def server_values(namespace: str, port: int) -> tuple[dict[str, Any], asyncio.Event]:
    """Fields as pipecat's runner fills them, and an event that is set once the bot serves."""
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


def call_when_ready(ready: asyncio.Event, arguments: Arguments, on_serving: Callable[[Sequence[str]], None]) -> Closer:
    """Call ``on_serving`` with the fingerprints that pipecat writes into the arguments; return a function to stop."""

    async def wait() -> None:
        await ready.wait()
        on_serving(getattr(arguments, "cert_fingerprints", None) or [])

    waiting = asyncio.ensure_future(wait())

    async def close(outcome: Outcome) -> None:
        waiting.cancel()

    return close
