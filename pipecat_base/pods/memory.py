"""Bounds what a session's process may eat: looked at every second, as its proportional set size (PSS)."""

from __future__ import annotations

import asyncio
from typing import Protocol

from pipecat_base.logs import logger
from pipecat_base.pods.worker import Worker

LOOK = 1.0
WARN_AT = 0.8


class Busy(Protocol):
    """Knows the workers that have a session."""

    def busy(self) -> dict[str, Worker]:
        """By session."""


async def watch_memory(pool: Busy, limit: int) -> None:
    """Warn of a session whose process has eaten much of ``limit`` bytes, and end one that has eaten more."""
    warned: set[str] = set()
    while True:
        await asyncio.sleep(LOOK)
        busy = pool.busy()
        warned &= set(busy)
        for session_id, worker in busy.items():
            size = await asyncio.to_thread(proportional_size, worker.pid)
            with logger.contextualize(session_id=session_id):
                if size > limit:
                    logger.error(
                        f"The session's process has {size} bytes, MAX_SESSION_MEMORY_BYTES is {limit}: it is ended"
                    )
                    worker.kill(f"was ended, as it had more than {limit} bytes (MAX_SESSION_MEMORY_BYTES)")
                elif size > WARN_AT * limit and session_id not in warned:
                    warned.add(session_id)
                    logger.warning(
                        f"The session's process has {size} bytes; it ends at {limit} (MAX_SESSION_MEMORY_BYTES)"
                    )


def proportional_size(pid: int) -> int:
    """Bytes: its own, and its part of those that it shares. 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
