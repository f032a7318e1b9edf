"""Delivery in threads: an operator's disk or address may be slow, and delays no call."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import Generic, Literal, TypeVar

from pipecat_base.logs.logger import logger

T = TypeVar("T")


class TryAgain(Exception):
    """Raised by ``deliver`` for an item that it is to get again later."""


class DeliveryQueue(Generic[T]):
    """Delivers items in order, in one thread; an item that waits for a retry delays no other.

    Args:
        on_drop: Called with the number of items that were dropped because ``max_items`` were waiting.
        retry_seconds: The first and the longest pause before a retry; each is twice the one before.
    """

    def __init__(
        self,
        thread_name: str,
        deliver: Callable[[T], None],
        *,
        max_items: int,
        on_drop: Callable[[int], None],
        drops: Literal["oldest", "newest"] = "oldest",
        retry_seconds: tuple[float, float] = (1, 1),
    ) -> None:
        self._thread_name = thread_name
        self._deliver = deliver
        self._max_items = max_items
        self._on_drop = on_drop
        self._drops = drops
        self._first_pause, self._max_pause = retry_seconds
        # Items by when they are due, then in order, each with the pause before its next try.
        self._waiting: list[tuple[float, int, float, T]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._dropped = 0
        self._given_up = 0
        self._is_busy = False
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def put(self, item: T) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._thread_name, daemon=True)
                self._thread.start()
            is_full = len(self._waiting) >= self._max_items
            self._dropped += is_full
            dropped = self._dropped
            if is_full and self._drops == "oldest":
                heapq.heappop(self._waiting)
            if not is_full or self._drops == "oldest":
                self._push(item, 0, self._first_pause)
        if is_full:
            self._on_drop(dropped)

    def close(self, within: float) -> int:
        """Try every waiting item once more, in so many seconds; the number of items left undelivered."""
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._waiting and not self._is_busy, within)
            return len(self._waiting) + self._is_busy + self._given_up

    def _push(self, item: T, delay: float, next_pause: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + delay, next(self._numbers), next_pause, item))
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            item, pause = self._next()
            is_done = self._is_delivered(item)
            with self._changed:
                self._is_busy = False
                if not is_done and self._is_closing:
                    self._given_up += 1
                elif not is_done:
                    self._push(item, pause, min(2 * pause, self._max_pause))
                self._changed.notify_all()

    def _next(self) -> tuple[T, float]:
        with self._changed:
            while True:
                delay = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if delay is not None and (delay <= 0 or self._is_closing):
                    _, _, pause, item = heapq.heappop(self._waiting)
                    self._is_busy = True
                    return item, pause
                self._changed.wait(delay)

    def _is_delivered(self, item: T) -> bool:
        try:
            self._deliver(item)
        except TryAgain:
            return False
        except Exception as error:  # costs this item only
            logger.opt(exception=error).error(f"The thread {self._thread_name} failed: {type(error).__name__}")
        return True
