"""CPU and memory that this process uses while a bot runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping

FIRST_SECONDS, INTERVAL_SECONDS = 1.0, 5.0
MIN_SECONDS = 0.5
"""A shorter time says little about a process; used only for a bot that ends before its first sample."""


class ResourceMonitor:
    """Emits samples until it is closed, with a timer: bots cancel tasks that they do not know."""

    def __init__(self, emit: Callable[[Mapping[str, float]], None]) -> None:
        self._emit = emit
        self._loop = asyncio.get_running_loop()
        self._at, self._cpu = time.monotonic(), time.process_time()
        self._has_emitted = False
        self._timer = self._loop.call_later(FIRST_SECONDS, self._on_time)

    def close(self) -> None:
        self._timer.cancel()
        if not self._has_emitted or time.monotonic() - self._at >= MIN_SECONDS:
            self._sample()

    def _on_time(self) -> None:
        self._timer = self._loop.call_later(INTERVAL_SECONDS, self._on_time)
        self._sample()

    def _sample(self) -> None:
        now, cpu = time.monotonic(), time.process_time()
        millicores = 1000 * (cpu - self._cpu) / max(now - self._at, 0.001)
        self._at, self._cpu, self._has_emitted = now, cpu, True
        self._emit({"cpu_millicores": round(millicores), "memory_bytes": resident_bytes()})


def resident_bytes() -> int:
    with contextlib.suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
