"""What it takes until a bot runs: first lines, ready times, and the memory of processes that wait for a call."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks import cpu
from benchmarks.__main__ import COMMANDS, HERE, free_port, running, wait_until_ready
from benchmarks.figures import Figure, Goal, Spread

MODES = {"one process": {"PIPECAT_ISOLATION": "none"}, "processes": {"PIPECAT_ISOLATION": "process"}}
PAUSE = 0.8
"""Seconds between starts: a process waits for each."""
BOT = HERE / "bots" / "first_line"
LINE = re.compile(r"first line ([\d.]+)")
LATEST = 15.0
"""Seconds until the first line of each call of a burst."""


@contextmanager
def logged(bot: Path, **variables: str) -> Iterator[tuple[int, int, Path]]:
    """A launcher's process and port, and where its output goes."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, open(Path(folder, "log"), "wb") as log:
        environment = {"PORT": str(port), "PIPECAT_HOST": "127.0.0.1", "PATH": os.environ["PATH"], **variables}
        process = subprocess.Popen(COMMANDS["launcher"], cwd=bot, env=environment, stdout=log, stderr=log)
        try:
            wait_until_ready(port, process)
            yield process.pid, port, Path(folder, "log")
        finally:
            process.kill()
            process.wait()


def first_line(variables: Mapping[str, str], count: int, pause: float = PAUSE) -> list[float]:
    """Milliseconds from sending ``POST /bot`` to the bot's first line, with a process waiting."""
    with logged(BOT, **variables) as (pid, port, log), httpx.Client(trust_env=False) as client:
        cpu.settle(pid)
        sent = []
        for _ in range(count):
            time.sleep(pause)
            sent.append(time.monotonic())
            client.post(f"http://127.0.0.1:{port}/bot", json={}).raise_for_status()
        ran = _lines(log, count)
    return sorted((at - before) * 1000 for before, at in zip(sent, ran, strict=True))


def burst(variables: Mapping[str, str], count: int, rounds: int) -> list[float]:
    """Milliseconds from ``count`` times ``POST /bot`` at once to each first line, with four processes waiting."""
    found: list[float] = []
    with logged(BOT, PIPECAT_IDLE_PROCESSES="4", **variables) as (pid, port, log):
        for number in range(rounds):
            cpu.settle(pid)
            sent = asyncio.run(_at_once(f"http://127.0.0.1:{port}", count))
            ran = _lines(log, count * (number + 1))[-count:]
            found += [(at - sent) * 1000 for at in ran]
    return sorted(found)


async def _at_once(url: str, count: int) -> float:
    """When the first was sent; their connections are open before."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client:
        await asyncio.gather(*(client.get("/readyz") for _ in range(count)))
        sent = time.monotonic()
        for answer in await asyncio.gather(*(client.post("/bot", json={}) for _ in range(count))):
            answer.raise_for_status()
    return sent


def _lines(log: Path, count: int) -> list[float]:
    """When each first line ran, in the order of the log, once all are there."""
    deadline = time.monotonic() + LATEST
    while len(found := LINE.findall(log.read_text())) < count and time.monotonic() < deadline:
        time.sleep(0.1)
    if len(found) != count:
        raise SystemExit(f"{count} calls, but {len(found)} first lines")
    return [float(at) for at in found]


def percentile(found: Sequence[float], percent: int) -> float:
    return found[int(len(found) * percent / 100)]


def waiting_memory(start_method: str, idle: int = 2) -> list[float]:
    """MB that each waiting process has to itself, and the lead process (Private_* of smaps_rollup)."""
    variables = {"PIPECAT_PROCESS_START": start_method, "PIPECAT_IDLE_PROCESSES": str(idle), **MODES["processes"]}
    with logged(BOT, **variables) as (pid, _, _):
        cpu.settle(pid)
        workers = [process for process in cpu.tree(pid) if not process.children()]
        return sorted(process.memory_full_info().uss / 1e6 for process in workers)


def ready(rounds: int) -> dict[str, list[float]]:
    """Milliseconds from exec to ready, the realistic bot; each mode goes first in every other round."""
    found: dict[str, list[float]] = {name: [] for name in MODES}
    for number in range(rounds + 1):
        for name, variables in sorted(MODES.items(), reverse=number % 2 == 0):
            began = time.monotonic()
            with running("launcher", HERE / "bots" / "realistic", **variables):
                found[name].append((time.monotonic() - began) * 1000)
    return {name: sorted(times[1:]) for name, times in found.items()}


def first_lines(count: int) -> Iterator[Figure]:
    times = {name: first_line(variables, count) for name, variables in MODES.items()}
    for percent in (50, 95):
        one, many = (Spread.alone(percentile(found, percent)) for found in times.values())
        yield Figure(f"first-line-p{percent}", f"POST /bot to first line, p{percent}", "ms", one, many, None)


def start(rounds: int) -> Figure:
    one, many = (Spread.of(times) for times in ready(rounds).values())
    title = "realistic bot: ready, a process for each call"
    return Figure("start-processes", title, "ms", one, many, Goal("ratio", "at most", 1.1))


def waiting() -> Iterator[tuple[str, list[float]]]:
    for method in ("fork", "spawn"):
        yield method, waiting_memory(method)


def shown(method: str, sizes: Sequence[float]) -> str:
    values = ", ".join(f"{size:.1f}" for size in sizes)
    return f"private memory of the lead and two that wait, {method}: {values} MB"
