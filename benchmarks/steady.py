"""CPU time of calls: what they use while they go on, and what each uses to begin and to end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import psutil

from benchmarks import cpu
from benchmarks.__main__ import ECHO, HERE
from benchmarks.calls import by_twilio, lost, speech, worst_gap
from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.track import FRAME_SECONDS

BOTS = {"echo": ECHO, "silero": HERE / "bots" / "echo_silero"}
SHORT = 0.5
"""Seconds of a call that is there to begin and end."""
SHORT_TAIL = 0.1
APART = 0.1
"""Seconds between the beginnings of two calls, and a part of a frame: callers do not speak in step."""
MAX_LOST = 0.01
LEAD = 2.5
"""Seconds after the last has begun, until all of them only say and hear."""


@dataclass(frozen=True)
class Steady:
    """Calls that go on.

    Attributes:
        millicores: CPU of a call, of the launcher and all its processes.
        processes: The launcher, and all below it.
        changed: Processes that came or went meanwhile.
        lost: The share of frames that did not come back.
        gap: Seconds between two frames, the worst call's 99th percentile.
    """

    calls: int
    millicores: float
    processes: int
    changed: int
    lost: float
    gap: float

    @property
    def carried(self) -> bool:
        """What cannot keep up does less for each frame: its CPU time is not to be compared."""
        return self.lost <= MAX_LOST


def steady(pid: int, port: int, count: int, seconds: float) -> Steady:
    """``count`` calls at once; their first and last seconds do not count."""
    said = speech(count * (APART + FRAME_SECONDS) + LEAD + seconds)
    cpu.settle(pid)

    async def place_calls() -> tuple[list[CallFigures], float, set[psutil.Process], set[psutil.Process]]:
        calls = []
        for _ in range(count):
            calls.append(asyncio.ensure_future(by_twilio(port, said)))
            await asyncio.sleep(APART + FRAME_SECONDS / count)
        await asyncio.sleep(LEAD)
        began, used, before = time.monotonic(), cpu.used(pid), cpu.tree(pid)
        await asyncio.sleep(seconds)
        cores, after = (cpu.used(pid) - used) / (time.monotonic() - began), cpu.tree(pid)
        return await asyncio.gather(*calls), cores, before, after

    calls, cores, before, after = asyncio.run(place_calls())
    share = lost(calls) / sum(call.sent for call in calls)
    return Steady(count, cores * 1000 / count, len(before), len(before ^ after), share, worst_gap(calls))


def begin_and_end(pid: int, port: int, count: int, millicores: float) -> float:
    """CPU seconds that a call takes without its audio, which takes ``millicores``; one call after the other."""
    said = speech(SHORT)
    cpu.settle(pid)
    before = cpu.used(pid)
    calls = [asyncio.run(by_twilio(port, said, SHORT_TAIL)) for _ in range(count)]
    cpu.settle(pid)
    sent = sum(call.sent for call in calls) * FRAME_SECONDS
    return (cpu.used(pid) - before - sent * millicores / 1000) / count
