"""CPU time of a launcher with all its processes, those that ended included."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import psutil

from benchmarks.__main__ import NotReady

PATIENCE = 20.0
"""Seconds to wait for processes that come and go, or for a launcher that works."""
LOOK = 0.5
IDLE = 0.04
"""CPU seconds in a second, of a launcher that rests."""
TICKS = 100
"""USER_HZ, the unit of times in proc(5)."""


def tree(pid: int) -> set[psutil.Process]:
    """A process and all below it."""
    root = psutil.Process(pid)
    return {root, *root.children(recursive=True)}


def used(pid: int) -> float:
    """CPU seconds of a process and all below it, with those that ended.

    A process that ends moves its time to its parent. So only a sum counts during which the processes stayed the same.
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        before = tree(pid)
        with contextlib.suppress(OSError):  # it has just ended
            seconds = sum(_own(one.pid) + _of_ended_children(one.pid) for one in before)
            if tree(pid) == before:
                return seconds
    raise NotReady(f"processes below {pid} come and go without a pause")


def settle(pid: int) -> None:
    """Wait until the launcher has nothing more to do."""
    deadline = time.monotonic() + PATIENCE
    before = used(pid)
    while time.monotonic() < deadline:
        time.sleep(LOOK)
        now = used(pid)
        if now - before < IDLE * LOOK:
            return
        before = now
    raise NotReady(f"process {pid} does not come to rest")


def _own(pid: int) -> float:
    """Nanoseconds count, and threads that ended: clock_getcpuclockid(3). A zombie has its time, too."""
    return time.clock_gettime(~pid << 3 | 2)


def _of_ended_children(pid: int) -> float:
    """The time of children that were waited for, and of theirs: cutime and cstime of proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS
