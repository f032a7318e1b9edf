"""Bounds the memory of a session's process and its children: proportional set size (PSS), measured every second."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Protocol

from pipecat_base.logs.logger import logger
from pipecat_base.workers.process import WorkerProcess
from pipecat_base.workers.process_tree import family, relations

LOOK = 1.0
WARN_AT = 0.8


class Busy(Protocol):
    """Knows the workers that have a session."""

    def busy(self) -> dict[str, WorkerProcess]:
        """By session."""


async def watch_memory(pool: Busy, limit: int) -> None:
    """Warn of a session whose process has eaten much of ``limit`` bytes, and end one that has eaten more."""
    warned: set[str] = set()
    while True:
        await asyncio.sleep(LOOK)
        busy = pool.busy()
        warned &= set(busy)
        sizes = await asyncio.to_thread(family_sizes, [worker.pid for worker in busy.values()])
        for session_id, worker in busy.items():
            size, processes = sizes.get(worker.pid, (0, 1))
            owner = "process has" if processes == 1 else f"{processes} processes have"
            with logger.contextualize(session_id=session_id):
                if size > limit:
                    logger.error(
                        f"The session's {owner} {size} bytes, MAX_SESSION_MEMORY_BYTES is {limit}: it is ended"
                    )
                    worker.kill(f"was ended, as it had more than {limit} bytes (MAX_SESSION_MEMORY_BYTES)")
                elif size > WARN_AT * limit and session_id not in warned:
                    warned.add(session_id)
                    logger.warning(f"The session's {owner} {size} bytes; it ends at {limit} (MAX_SESSION_MEMORY_BYTES)")


def family_sizes(pids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Of each worker with all that its bot has started: bytes, and the number of processes."""
    known = relations()
    families = {pid: family(pid, known) for pid in pids}
    return {pid: (sum(map(proportional_size, members)), len(members)) for pid, members in families.items()}


def proportional_size(pid: int) -> int:
    """Bytes: its own, and its part of those that it shares. 0 when it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
