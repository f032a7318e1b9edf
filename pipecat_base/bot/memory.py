"""Looks for garbage when that costs least: seldom while the bot is imported, and after a session if no other one runs.

A pipeline is full of reference cycles, and glibc keeps the pages of what is freed: without help a pod that takes one
call after the other grows with each.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import time
from collections.abc import Callable, Iterator

from pipecat_base.logs.logger import logger

TURNS = 3
"""Of the loop, before memory is looked at: callbacks that end a session's tasks hold on to them for two."""

OBJECTS_BETWEEN_COLLECTIONS = 20_011
"""While the bot is imported. Python's own number, 700 to 2,000, makes a tenth of an import a search for garbage that is
not there. It is not round: one that the bot sets would be taken for it."""


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """While something is imported: it makes many objects that stay. A threshold that the bot sets is left to it."""
    usual = gc.get_threshold()
    seldom = (max(usual[0], OBJECTS_BETWEEN_COLLECTIONS) if usual[0] else 0, *usual[1:])
    gc.set_threshold(*seldom)
    try:
        yield
    finally:
        if gc.get_threshold() == seldom:
            gc.set_threshold(*usual)


class MemoryRelease:
    """Collects garbage and trims the heap.

    Args:
        is_alone: Whether no other session runs: it would be halted by the collection.
    """

    def __init__(self, is_alone: Callable[[], bool]) -> None:
        self._is_alone = is_alone

    def keep_what_is_there(self) -> None:
        """What is in memory now stays for good, modules above all: no later collection looks at it.

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
    trim = _malloc_trim()
    return trim is not None and bool(trim(0))


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    try:
        import ctypes  # a hundredth of a second that no start waits for

        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return None
    return trim
