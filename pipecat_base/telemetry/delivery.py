"""Work that may take its time, in a thread of its own: files and addresses of operators, off the path of calls."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from pipecat_base.logs.logger import logger

T = TypeVar("T")


class DeliveryQueue(Generic[T]):
    """Does one thing with each item, in order.

    Args:
        name: Of its thread.
        handle: Called with each item, in the thread. It may wait.
        most: Items that may wait; then the oldest is dropped.
        on_drop: Called with the number of those, when one is dropped.
    """

    def __init__(self, name: str, handle: Callable[[T], None], *, most: int, on_drop: Callable[[int], None]) -> None:
        self._handle = handle
        self._most = most
        self._on_drop = on_drop
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._dropped = 0
        self._busy = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False

    def put(self, item: T) -> None:
        """One more; never waits for the work."""
        dropped = 0
        with self._changed:
            if not self._started:
                self._started = True
                self._thread.start()
            self._items.append(item)
            if len(self._items) > self._most:
                self._items.popleft()
                self._dropped += 1
                dropped = self._dropped
            self._changed.notify()
        if dropped:
            self._on_drop(dropped)

    def __len__(self) -> int:
        return len(self._items)

    def close(self, within: float) -> bool:
        """Take what waits to its end; whether that could be done in so many seconds."""
        deadline = time.monotonic() + within
        with self._changed:
            while self._items or self._busy:
                left = deadline - time.monotonic()
                if left <= 0 or not self._started:
                    return False
                self._changed.wait(left)
        return True

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._items:
                    self._changed.notify_all()
                    self._changed.wait()
                item = self._items.popleft()
                self._busy = True
            try:
                self._handle(item)
            except Exception as error:  # the next one may be handled
                logger.opt(exception=error).error(f"The thread {self._thread.name} failed: {type(error).__name__}")
            finally:
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
