"""``make bench``: the launcher against the floor, alternating, in one run. Goals are ratios, never absolute numbers."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
from websockets.asyncio.client import connect

from benchmarks import webrtc
from benchmarks.figures import Figure, Goal, Spread

HERE = Path(__file__).parent
ECHO = HERE.parent / "examples" / "echo"
COMMANDS = {
    "floor": [sys.executable, str(HERE / "floor.py")],
    "floor of calls": [sys.executable, str(HERE / "floor_calls.py")],
    "launcher": [sys.executable, "-m", "pipecat_base"],
}
CONTENDERS = ("floor", "launcher")
ICE_FAULTS = ("refusing", "hanging", "garbage")
Samples = dict[str, list[float]]


class NotReady(SystemExit):
    """A launcher, or a floor, that cannot be measured."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def start(which: str, bot: Path, **variables: str) -> tuple[subprocess.Popen[bytes], int]:
    port = free_port()
    environment = {
        "PORT": str(port),
        "PIPECAT_HOST": "127.0.0.1",
        "PIPECAT_LOG_LEVEL": "WARNING",
        "PATH": os.environ["PATH"],
        **variables,
    }
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(COMMANDS[which], cwd=bot, env=environment, stdout=quiet, stderr=quiet, close_fds=True)
    return process, port


def wait_until_ready(port: int, process: subprocess.Popen[bytes] | None = None) -> None:
    url = f"http://127.0.0.1:{port}/readyz"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=30) as answer:
            if answer.status == 200:
                return
        if process is not None and process.poll() is not None:
            raise NotReady(f"it ended with exit status {process.returncode} before it was ready")
        # The launcher answers while it imports: probes at once after each other would be most of what is measured.
        time.sleep(0.02)
    raise NotReady(f"nothing is ready on port {port} after a minute")


@contextlib.contextmanager
def running(which: str, bot: Path, **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    process, port = start(which, bot, **variables)
    try:
        wait_until_ready(port, process)
        yield process, port
    finally:
        process.kill()
        process.wait()


def start_up(bot: str, rounds: int) -> tuple[Samples, Samples]:
    """Milliseconds from exec to the first 200, and MB resident then."""
    times: Samples = {which: [] for which in CONTENDERS}
    memory: Samples = {which: [] for which in CONTENDERS}
    for _ in range(rounds + 1):
        for which in CONTENDERS:
            began = time.perf_counter()
            with running(which, HERE / "bots" / bot) as (process, _):
                times[which].append((time.perf_counter() - began) * 1000)
                memory[which].append(psutil.Process(process.pid).memory_info().rss / 1e6)
    return times, memory


async def requests(port: int, count: int) -> float:
    """Milliseconds for one POST /bot, the median of ``count``."""
    samples = []
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        for _ in range(count):
            began = time.perf_counter()
            response = await client.post("/bot", json={"a": 1})
            samples.append((time.perf_counter() - began) * 1000)
            assert response.status_code == 200
    return statistics.median(samples[count // 10 :])


async def frames(port: int, count: int) -> float:
    """Frames of 20 ms echoed in a second, with a window of 50 under way."""
    frame = bytes(640)
    async with connect(f"ws://127.0.0.1:{port}/ws", proxy=None, compression=None) as websocket:
        began = time.perf_counter()
        for _ in range(50):
            await websocket.send(frame)
        for n in range(count):
            await websocket.recv()
            if n < count - 50:
                await websocket.send(frame)
        return count / (time.perf_counter() - began)


def alternate(rounds: int, measure: Callable[[int], float]) -> Samples:
    bot = HERE / "bots" / "trivial"
    samples: Samples = {which: [] for which in CONTENDERS}
    with running("floor", bot) as (_, floor), running("launcher", bot) as (_, launcher):
        for which, port in in_turn(rounds, floor, launcher):
            samples[which].append(measure(port))
    return samples


def in_turn(rounds: int, floor: int, launcher: int) -> Iterator[tuple[str, int]]:
    """Each goes first in every other round: the machine's speed drifts within one."""
    ports = {"floor": floor, "launcher": launcher}
    for number in range(rounds + 1):
        yield from sorted(ports.items(), reverse=number % 2 == 0)


def calls(rounds: int) -> list[Samples]:
    """WebRTC: milliseconds from the offer to the answer, to the first audio, to the first echoed tone."""
    figures: list[Samples] = [{which: [] for which in CONTENDERS} for _ in range(3)]
    no_ice = {"PIPECAT_ICE_SERVERS": "[]"}
    with running("floor of calls", ECHO) as (_, floor), running("launcher", ECHO, **no_ice) as (_, launcher):
        for which, port in in_turn(rounds, floor, launcher):
            for samples, value in zip(figures, asyncio.run(webrtc.call(port)), strict=True):
                samples[which].append(value)
    return figures


def without_ice_config(kind: str, rounds: int) -> Samples:
    """Milliseconds from offer to answer: no ICE_CONFIG_URL, and one that does not work, after its first failure."""
    samples: Samples = {which: [] for which in CONTENDERS}
    no_ice = {"PIPECAT_ICE_SERVERS": "[]"}
    with (
        webrtc.ice_config(kind) as url,
        running("launcher", ECHO, **no_ice) as (_, floor),
        running("launcher", ECHO, ICE_CONFIG_URL=url) as (_, launcher),
    ):
        for which, port in in_turn(rounds, floor, launcher):
            samples[which].append(asyncio.run(webrtc.call(port))[0])
    return samples


def figure(name: str, title: str, unit: str, samples: Samples, goal: Goal) -> Figure:
    # The first round fills caches.
    floor, launcher = (Spread.of(samples[which][1:]) for which in CONTENDERS)
    return Figure(name, title, unit, floor, launcher, goal)


def compare(rounds: int) -> Iterator[Figure]:
    """All figures of one process, as they are measured."""
    for bot, limit in (("trivial", 1.15), ("realistic", 1.06)):
        times, memory = start_up(bot, rounds)
        title = f"{bot} bot: exec to ready"
        yield figure(f"start-{bot}", title, "ms", times, Goal("ratio", "at most", limit))
        title = f"{bot} bot: resident memory"
        yield figure(f"memory-{bot}", title, "MB", memory, Goal("difference", "at most", 8))
    posts = alternate(rounds, lambda port: asyncio.run(requests(port, 200)))
    yield figure("dispatch", "POST /bot, there and back", "ms", posts, Goal("difference", "at most", 0.5))
    echoes = alternate(rounds, lambda port: asyncio.run(frames(port, 3000)))
    yield figure("frames", "/ws echo", "frames/s", echoes, Goal("ratio", "at least", 0.97))
    for what, samples in zip(("answer", "first audio", "echoed tone"), calls(rounds), strict=True):
        name = f"webrtc-{what.replace(' ', '-')}"
        yield figure(name, f"WebRTC: offer to {what}", "ms", samples, Goal("ratio", "at most", 1.1))
    for kind in ICE_FAULTS:
        title = f"offer to answer, {kind} ICE_CONFIG_URL"
        samples = without_ice_config(kind, rounds)
        yield figure(f"ice-{kind}", title, "ms", samples, Goal("difference", "at most", 50))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=16)
    for one in compare(parser.parse_args().rounds):
        print(one, flush=True)


if __name__ == "__main__":
    main()
