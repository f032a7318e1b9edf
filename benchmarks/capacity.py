"""The calls that a machine can carry: one process for all against a process for each.

The callers use the same cores as what they call, so the calls are counted by CPU time: in one process they share one
core, in processes all of them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence

import psutil

from benchmarks import cpu
from benchmarks.__main__ import ECHO, running
from benchmarks.calls import by_twilio, lost, speech, worst_gap
from benchmarks.figures import Figure, Goal, Load, Spread
from benchmarks.starts import MODES
from pipecat_base.cli.call.figures import CallFigures

COUNTS = (1, 2, 4, 8, 16, 32)
"""Calls at once."""


def carry(contender: str, count: int, seconds: float) -> Load:
    """``count`` calls at once, said back to for ``seconds``."""
    said = speech(seconds)
    which = "launcher" if contender in MODES else contender
    variables = {"PIPECAT_IDLE_PROCESSES": str(count), **MODES.get(contender, {})}
    with running(which, ECHO, **variables) as (process, port):
        time.sleep(3 + 0.1 * count)
        everyone = psutil.Process(process.pid)
        before = sum(one.memory_full_info().pss for one in [everyone, *everyone.children(recursive=True)])

        async def place_calls() -> tuple[list[CallFigures], float, float]:
            calls = [asyncio.ensure_future(by_twilio(port, said)) for _ in range(count)]
            await asyncio.sleep(seconds / 4)  # they have begun
            began, used = time.monotonic(), cpu.used(process.pid)
            await asyncio.sleep(seconds / 2)
            cores = (cpu.used(process.pid) - used) / (time.monotonic() - began)
            after = sum(one.memory_full_info().pss for one in [everyone, *everyone.children(recursive=True)])
            return await asyncio.gather(*calls), cores, after

        calls, cores, after = asyncio.run(place_calls())
    return Load(contender, count, cores, (after - before) / 1e6 / count, lost(calls), worst_gap(calls))


def loads(counts: Sequence[int], seconds: float) -> Iterator[Load]:
    """Ever more calls, on the floor and in each mode, up to the first that are not carried."""
    for contender in ("floor of calls", *MODES):
        for count in counts:
            load = carry(contender, count, seconds)
            yield load
            if not load.carried:
                break


def calls_per_machine(found: Sequence[Load]) -> Figure:
    """By CPU time, at the most calls that both modes carried: one process has a core, processes have all."""
    cores = {(load.contender, load.calls): load.cores for load in found}
    most = max(_in_both([load for load in found if load.carried]) or _in_both(found))
    machine = os.cpu_count() or 1
    usable = zip((1, machine), MODES, strict=True)
    one, many = (Spread.alone(count * most / cores[name, most]) for count, name in usable)
    goal = Goal("ratio", "at least", 1.8) if machine == 2 else None
    return Figure("calls", f"calls on {machine} cores", "calls", one, many, goal)


def _in_both(found: Sequence[Load]) -> set[int]:
    return set.intersection(*({load.calls for load in found if load.contender == name} for name in MODES))
