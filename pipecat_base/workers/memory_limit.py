"""Limits the memory (PSS) of a session's process and its children."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from pipecat_base.logs.logger import logger
from pipecat_base.workers.process_tree import family, list_processes

if TYPE_CHECKING:
    from pipecat_base.workers.process import WorkerProcess

CHECK_INTERVAL_SECONDS = 1.0
WARN_AT = 0.8


async def watch_memory(busy_workers: Callable[[], Mapping[str, WorkerProcess]], limit_of_call: int) -> None:
    warned: set[str] = set()
    while True:
        await asyncio.sleep(CHECK_INTERVAL_SECONDS)
        busy = busy_workers()
        warned &= set(busy)
        sizes = await asyncio.to_thread(family_sizes, [worker.pid for worker in busy.values()])
        for session_id, worker in busy.items():
            size, processes = sizes.get(worker.pid, (0, 1))
            limit = limit_of_call * max(1, worker.most_calls)  # what a call has left is not given back at once
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
    """Bytes and number of processes of each worker and everything it has started."""
    known = list_processes()
    families = {pid: family(pid, known) for pid in pids}
    return {pid: (sum(map(proportional_size, members)), len(members)) for pid, members in families.items()}


def proportional_size(pid: int) -> int:
    """Proportional set size in bytes; 0 if the process has ended."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return 0
