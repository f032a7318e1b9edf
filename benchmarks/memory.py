"""``make bench-memory``: what a pod holds on to after each of twenty phone calls, with its release and without."""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Iterator

import psutil

from benchmarks.__main__ import ECHO, HERE, running
from benchmarks.calls import by_twilio
from pipecat_base.cli.call import audio

SETTLED = 0.5
"""Seconds after a call's end; the release is done then."""


def resident(sessions: int, seconds: float, *, release: bool) -> list[float]:
    """MB: when ready, then after each call."""
    samples, rate = audio.read_wav(str(ECHO.parent / "speech.wav"))
    speech = audio.resample(samples, rate, audio.PHONE_RATE)[: int(seconds * audio.PHONE_RATE)]
    variables = {"PCC_RELEASE_SESSION_MEMORY": str(release)}
    with running("launcher", HERE / "bots" / "cascade", **variables) as (process, port):
        launcher = psutil.Process(process.pid)
        found = [launcher.memory_info().rss / 1e6]
        for _ in range(sessions):
            call = asyncio.run(by_twilio(port, speech))
            assert call.received, "the bot said nothing"
            time.sleep(SETTLED)
            found.append(launcher.memory_info().rss / 1e6)
    return found


def held(sessions: int, seconds: float) -> Iterator[tuple[str, list[float]]]:
    """What a pod keeps without the release of memory, and with it."""
    for name, release in (("without the release", False), ("with the release", True)):
        yield name, resident(sessions, seconds, release=release)


def shown(name: str, found: list[float]) -> str:
    values = ", ".join(f"{value:.0f}" for value in found)
    return f"{name} of memory: {values} MB; from the first call's end to the last's {found[-1] - found[1]:+.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="what the caller says in each")
    options = parser.parse_args()
    for name, found in held(options.sessions, options.seconds):
        print(shown(name, found), flush=True)


if __name__ == "__main__":
    main()
