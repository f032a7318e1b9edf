"""``make bench-isolation``: what a process for each call costs, and what it gives, against one process in the same run.

The callers use the same cores as what they call, so the calls that a machine can carry are counted by CPU time: in one
process they share one core, in processes all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil

from benchmarks.__main__ import COMMANDS, ECHO, HERE, running, wait_until_ready
from benchmarks.calls import by_twilio
from benchmarks.figures import Figure, Goal, Load, Spread
from pipecat_base.cli.call import audio
from pipecat_base.cli.call.figures import CallFigures

MODES = {"one process": {"PIPECAT_ISOLATION": "none"}, "processes": {"PIPECAT_ISOLATION": "process"}}
COUNTS = (1, 2, 4, 8, 16, 32)
"""Calls at once."""
PAUSE = 0.8
"""Seconds between starts: a process waits for each."""


@contextmanager
def logged(bot: Path, port: int, **variables: str) -> Iterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "wb") as log:
        environment = {"PORT": str(port), "PIPECAT_HOST": "127.0.0.1", "PATH": os.environ["PATH"], **variables}
        process = subprocess.Popen(COMMANDS["launcher"], cwd=bot, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(port)
            yield process.pid, Path(folder, "log")
        finally:
            process.kill()
            process.wait()


def first_line(port: int, count: int, **variables: str) -> list[float]:
    """Milliseconds from sending ``POST /bot`` to the bot's first line, with a process waiting."""
    with logged(HERE / "bots" / "first_line", port, **variables) as (_, log), httpx.Client() as client:
        time.sleep(5)  # warmed up
        sent = []
        for _ in range(count):
            time.sleep(PAUSE)
            sent.append(time.monotonic())
            client.post(f"http://127.0.0.1:{port}/bot", json={}).raise_for_status()
        time.sleep(0.5)
        ran = [float(found) for found in re.findall(r"first line ([\d.]+)", log.read_text())]
    return sorted((at - before) * 1000 for before, at in zip(sent, ran, strict=True))


def private_memory(port: int, start_method: str) -> list[float]:
    """MB that each waiting process has to itself."""
    variables = {"PIPECAT_ISOLATION": "process", "PIPECAT_PROCESS_START": start_method, "PIPECAT_IDLE_PROCESSES": "2"}
    with logged(HERE / "bots" / "first_line", port, **variables) as (pid, _):
        time.sleep(12)
        everyone = psutil.Process(pid).children(recursive=True)
        workers = [process for process in everyone if not process.children()]
        return sorted(process.memory_full_info().uss / 1e6 for process in workers)


def ready(rounds: int) -> dict[str, list[float]]:
    """Milliseconds from exec to ready, the realistic bot."""
    found: dict[str, list[float]] = {name: [] for name in MODES}
    for _ in range(rounds + 1):
        for name, variables in MODES.items():
            began = time.monotonic()
            with running("launcher", HERE / "bots" / "realistic", **variables):
                found[name].append((time.monotonic() - began) * 1000)
    return {name: sorted(times[1:]) for name, times in found.items()}


def cpu_of(pid: int) -> float:
    """Seconds that a process and all below it have used."""
    process = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in [process, *process.children(recursive=True)])


def carry(contender: str, count: int, seconds: float) -> Load:
    """``count`` calls at once, said back to for ``seconds``."""
    samples, rate = audio.read_wav(str(ECHO.parent / "speech.wav"))
    speech = np.resize(audio.resample(samples, rate, audio.PHONE_RATE), int(seconds * audio.PHONE_RATE))
    which = "launcher" if contender in MODES else contender
    variables = {"PIPECAT_IDLE_PROCESSES": str(count), **MODES.get(contender, {})}
    with running(which, ECHO, **variables) as (process, port):
        time.sleep(3 + 0.1 * count)
        everyone = psutil.Process(process.pid)
        before = sum(one.memory_full_info().pss for one in [everyone, *everyone.children(recursive=True)])

        async def place_calls() -> tuple[list[CallFigures], float, float]:
            calls = [asyncio.ensure_future(by_twilio(port, speech)) for _ in range(count)]
            await asyncio.sleep(seconds / 4)  # they have begun
            began, used = time.monotonic(), cpu_of(process.pid)
            await asyncio.sleep(seconds / 2)
            cores = (cpu_of(process.pid) - used) / (time.monotonic() - began)
            after = sum(one.memory_full_info().pss for one in [everyone, *everyone.children(recursive=True)])
            return await asyncio.gather(*calls), cores, after

        calls, cores, after = asyncio.run(place_calls())
    lost = sum(call.lost if call.echo else call.sent - call.received for call in calls)
    gap = max(call.p99_gap() for call in calls)
    return Load(contender, count, cores, (after - before) / 1e6 / count, lost, gap)


def first_lines(port: int, count: int) -> Iterator[Figure]:
    times = {name: first_line(port, count, **variables) for name, variables in MODES.items()}
    for percent in (50, 95):
        one, many = (Spread.alone(found[int(len(found) * percent / 100)]) for found in times.values())
        yield Figure(f"first-line-p{percent}", f"POST /bot to first line, p{percent}", "ms", one, many, None)


def start(rounds: int) -> Figure:
    one, many = (Spread.of(times) for times in ready(rounds).values())
    title = "realistic bot: ready, a process for each call"
    return Figure("start-processes", title, "ms", one, many, Goal("ratio", "at most", 1.1))


def waiting(port: int) -> Iterator[tuple[str, list[float]]]:
    for method in ("fork", "spawn"):
        yield method, private_memory(port, method)


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("--starts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--port", type=int, default=18080)
    options = parser.parse_args()
    for figure in first_lines(options.port, options.starts):
        print(figure, flush=True)
    for method, sizes in waiting(options.port):
        print(shown(method, sizes), flush=True)
    print(start(options.rounds), flush=True)
    carried = []
    for load in loads([options.calls], options.seconds):
        print(load, flush=True)
        carried.append(load)
    print(calls_per_machine(carried))


def shown(method: str, sizes: Sequence[float]) -> str:
    values = ", ".join(f"{size:.1f}" for size in sizes)
    return f"private memory of the lead and two that wait, {method}: {values} MB"


if __name__ == "__main__":
    main()
