"""Garbage collection when it costs least: seldom during the bot's import, and after a session.

A pipeline is full of reference cycles, and glibc keeps freed pages: without this, a pod grows with each call.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import time
from collections.abc import Callable, Iterator

from pipecat_base.logs.logger import logger

# Callbacks that end a session's tasks hold on to them for two turns of the event loop.
LOOP_TURNS_BEFORE_COLLECTION = 3
# Python's own threshold, 700 to 2,000, makes garbage collection a tenth of the bot's import, and there is no garbage.
# Deliberately not a round number, so that a threshold set by the bot is recognised as the bot's.
OBJECTS_BETWEEN_COLLECTIONS = 20_011


@contextlib.contextmanager
def collecting_seldom() -> Iterator[None]:
    """Collect less often during an import, whose objects stay. A threshold that the bot sets is kept."""
    usual = gc.get_threshold()
    seldom = (max(usual[0], OBJECTS_BETWEEN_COLLECTIONS) if usual[0] else 0, *usual[1:])
    gc.set_threshold(*seldom)
    try:
        yield
    finally:
        if gc.get_threshold() == seldom:
            gc.set_threshold(*usual)


class MemoryRelease:
    """Collects garbage and trims the heap after a session, unless another one runs, which that would halt."""

    def __init__(self, is_alone: Callable[[], bool]) -> None:
        self._is_alone = is_alone

    def freeze(self) -> None:
        """Exempt all current objects from collection, which would halt the event loop for a tenth of a second."""
        gc.freeze()

    async def __call__(self) -> None:
        for _ in range(LOOP_TURNS_BEFORE_COLLECTION):
            await asyncio.sleep(0)
        if not self._is_alone():
            return
        started = time.monotonic()
        collected = gc.collect()
        between = time.monotonic()
        trim = _malloc_trim()
        trimmed = trim is not None and bool(trim(0))
        ended = time.monotonic()
        logger.debug(
            f"Released session memory: collected {collected} objects in {(between - started) * 1000:.0f} ms,"
            f" malloc_trim returned memory: {trimmed} in {(ended - between) * 1000:.0f} ms"
        )


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    """glibc's function, which returns 1 if it gave pages back to the system."""
    try:
        import ctypes  # takes 10 ms, which no start should wait for

        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return None
    return trim
