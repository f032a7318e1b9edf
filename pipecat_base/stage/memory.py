"""Gives back what a session leaves behind, once no other one runs.

A pipeline is full of reference cycles, and glibc keeps the pages of what is freed: without help a pod that takes one
call after the other grows with each.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable

from pipecat_base.logs import logger

TURNS = 3
"""Of the loop, before memory is looked at: callbacks that end a session's tasks hold on to them for two."""


class MemoryRelease:
    """Collects garbage and trims the heap.

    Args:
        is_alone: Whether no other session runs: it would be halted by the collection.
    """

    def __init__(self, is_alone: Callable[[], bool]) -> None:
        self._is_alone = is_alone

    def begin(self) -> None:
        """Before the first session. What is there now, modules above all, stays for good: no collection looks at it.

        One that did would halt the loop for a tenth of a second with a bot of usual size.
        """
        gc.freeze()

    async def __call__(self) -> None:
        """At the end of a session, when all that it held is closed."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
        if not self._is_alone():
            return
        started = time.monotonic()
        collected = gc.collect()
        between = time.monotonic()
        trimmed = _trim()
        ended = time.monotonic()
        logger.debug(
            f"Released session memory: collected {collected} objects in {(between - started) * 1000:.0f} ms,"
            f" malloc_trim returned memory: {trimmed} in {(ended - between) * 1000:.0f} ms"
        )


def _trim() -> bool:
    """Whether the allocator gave pages back to the system; only glibc's can be asked to."""
    try:
        import ctypes  # a hundredth of a second that no start waits for

        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (ImportError, OSError, AttributeError):
        return False
