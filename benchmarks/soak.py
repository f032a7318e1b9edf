"""``make soak``: thousands of short calls over every transport, and nothing of them stays.

First a thousand calls that do not count: the launcher remembers how the last thousand ended. Then rounds of 500. After
each the launcher comes to rest and is looked at: descriptors, threads, asyncio's tasks, memory of its own, processes.
What there is after the first round is what there may be at the end: not one descriptor, thread, task, process or zombie
more, and at most two per cent of memory. The exit status is 1 when there is more, or when a call was not answered as it
should be.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from benchmarks.__main__ import HERE
from pipecat_base.sessions.outcome import MAX_REPORTS
from tests.support.browser_peer import Browser
from tests.support.launchers import Launcher, own_memory
from tests.support.phones import FRAME, twilio
from tests.support.tones import tone

MODES = ("none", "process")
ROUND = 500
"""Calls between two looks; caches and pools have filled up after the first."""
MAX_GROWTH = 0.02
"""Of memory, since the first round."""
REST = 20.0
"""Seconds after a round that the launcher may take to be as it was."""
A_CALL = 60.0
"""Seconds after which a call counts as lost."""
POOL = min(32, (os.cpu_count() or 1) + 4)
"""Threads that asyncio starts at most."""
WORDS = "hello"
Figures = dict[str, float]


class Wrong(Exception):
    """A call was not answered as it should be."""


def expect(what: str, found: object, *wanted: object) -> None:
    if found not in wanted:
        raise Wrong(f"{what}: {found!r}, not {' or '.join(map(repr, wanted))}")


class Caller:
    """Calls of every kind, one method each."""

    def __init__(self, launcher: Launcher, http: httpx.AsyncClient) -> None:
        self._launcher = launcher
        self._http = http
        self._url = f"http://127.0.0.1:{launcher.port}"
        self._phone = [json.dumps(message) for message in twilio().opening]
        self._phone += [twilio().frame(tone(440, 0.02)[:FRAME], number) for number in range(5)]

    async def plain(self) -> None:
        expect("POST /bot", (await self._http.post("/bot", json={})).status_code, 200)

    async def failing(self) -> None:
        expect("POST /bot of a bot that raises", (await self._http.post("/bot", json={"do": "raise"})).status_code, 500)

    async def phone(self) -> None:
        await self._talk("/ws", self._phone)

    async def client(self) -> None:
        await self._talk("/ws-client", [f"{WORDS} {number}" for number in range(5)])

    async def _talk(self, path: str, messages: list[str]) -> None:
        async with connect(self._launcher.websocket_url(path), proxy=None) as websocket:
            for message in messages:
                await websocket.send(message)
                expect(path, await websocket.recv(), message)

    async def offer_with_data(self) -> None:
        await self._meet_over_data(self._url)

    async def offer_with_audio(self) -> None:
        """The bot leaves first."""
        async with Browser(self._url, audio_only=True) as browser:
            expect("an offer", (await browser.offer(requestData={"do": "leave"})).status_code, 200)
            await browser.ended.wait()

    async def started_offer(self) -> None:
        """Through the gateway, as a page does it."""
        answer = await self._http.post("/start", json={"transport": "webrtc"})
        expect("POST /start", answer.status_code, 200)
        await self._meet_over_data(f"{self._url}/sessions/{answer.json()['sessionId']}")

    async def _meet_over_data(self, url: str) -> None:
        async with Browser(url, data_only=True) as browser:
            back: asyncio.Future[None] = asyncio.get_running_loop().create_future()

            def on_open() -> None:
                browser.channel.send(json.dumps({"type": WORDS}))

            def on_message(message: str) -> None:
                if WORDS in message and not back.done():
                    back.set_result(None)

            browser.channel.on("open", on_open)
            browser.channel.on("message", on_message)
            expect("an offer", (await browser.offer()).status_code, 200)
            await back

    async def started(self) -> None:
        """A session that the gateway starts, is asked something and ends."""
        answer = await self._http.post("/v1/public/soak/start", json={"body": {"do": "stay"}})
        expect("POST /v1/public/soak/start", answer.status_code, 200)
        session = f"/sessions/{answer.json()['sessionId']}"
        expect("the Session API", (await self._http.get(f"{session}/alive")).status_code, 200)
        expect("DELETE of a session", (await self._http.delete(session)).status_code, 200)

    async def abandoned(self) -> None:
        """A session that never gets its offer."""
        answer = await self._http.post("/start", json={"transport": "webrtc"})
        expect("POST /start", answer.status_code, 200)
        session = f"/sessions/{answer.json()['sessionId']}"
        expect("DELETE of one that waits", (await self._http.delete(session)).status_code, 200)

    async def refused(self) -> None:
        expect("a broken body", (await self._http.post("/bot", content=b"{")).status_code, 400)
        expect(
            "a broken offer", (await self._http.post("/api/offer", json={"sdp": "x", "type": "offer"})).status_code, 400
        )
        expect("an unknown transport", (await self._http.post("/start", json={"transport": "pigeon"})).status_code, 400)
        expect("an unknown session", (await self._http.delete("/sessions/nobody")).status_code, 404)
        wrong = {"x-pcc-flow-config-file": "../flow"}
        with contextlib.suppress(InvalidStatus):
            async with connect(self._launcher.websocket_url(), proxy=None, additional_headers=wrong):
                raise Wrong("a WebSocket that names a file outside the folder was accepted")


MIX: list[tuple[Callable[[Caller], Awaitable[None]], int]] = [
    (Caller.plain, 8),
    (Caller.failing, 2),
    (Caller.phone, 8),
    (Caller.client, 8),
    (Caller.offer_with_data, 1),
    (Caller.offer_with_audio, 1),
    (Caller.started_offer, 1),
    (Caller.started, 4),
    (Caller.abandoned, 2),
    (Caller.refused, 5),
]
"""How many of each there are in forty calls: peers cost the caller more than the launcher."""


def order() -> Iterator[Callable[[Caller], Awaitable[None]]]:
    """Forty calls in another order each time, the same in every run."""
    shuffled = [call for call, count in MIX for _ in range(count)]
    chance = random.Random(0)
    while True:
        chance.shuffle(shuffled)
        yield from shuffled


@dataclass
class Soak:
    """What has been done to one launcher so far, and what was seen."""

    launcher: Launcher
    http: httpx.AsyncClient
    calls: int = 0
    seconds: float = 0.0
    wrong: collections.Counter[str] = field(default_factory=collections.Counter)
    looks: list[tuple[int, Figures]] = field(default_factory=list)

    async def fill(self, calls: Iterator[Callable[[Caller], Awaitable[None]]], at_once: int) -> None:
        """As many calls as the launcher remembers the ends of: it has room for that many, and no more."""
        await self.round(calls, MAX_REPORTS, at_once, float("inf"))
        self.calls, self.seconds = 0, 0.0

    async def round(
        self, calls: Iterator[Callable[[Caller], Awaitable[None]]], count: int, at_once: int, until: float
    ) -> None:
        """So many calls, or as many as there is time for."""
        caller = Caller(self.launcher, self.http)
        left = count

        async def some() -> None:
            nonlocal left
            while left and time.monotonic() < until:
                left -= 1
                call = next(calls)
                try:
                    await asyncio.wait_for(call(caller), A_CALL)
                except Exception as error:
                    name = call.__name__
                    self.wrong[f"{name}: {error}" if isinstance(error, Wrong) else f"{name}: {error!r}"] += 1
                self.calls += 1

        began = time.monotonic()
        await asyncio.gather(*(some() for _ in range(at_once)))
        self.seconds += time.monotonic() - began

    async def look(self) -> Figures:
        """The figures at rest: no more than after the first round as soon as that is true, else what there is."""
        deadline = time.monotonic() + REST
        while True:
            await asyncio.sleep(0.5)
            figures = await self._figures()
            first = self.looks[0][1] if self.looks else None
            calm = first is not None and not exceeding(first, figures)
            if calm or time.monotonic() > deadline or (first is None and time.monotonic() > deadline - REST / 2):
                self.looks.append((self.calls, figures))
                return figures

    async def _figures(self) -> Figures:
        # One more, alone: what gives memory back waits for a session that ends while no other one runs.
        await Caller(self.launcher, self.http).plain()
        alive = (await self.http.get("/alive")).json()
        launcher = psutil.Process(self.launcher.process.pid)
        below = launcher.children(recursive=True)
        named = {"launcher": launcher}
        if below:
            (fork_server,) = launcher.children()
            named |= {
                "fork server": fork_server,
                "template": fork_server.children()[0],
                "lead": psutil.Process(alive["pid"]),
            }
        figures: Figures = {}
        for name, process in named.items():
            figures[f"{name}: descriptors"] = process.num_fds()
            figures[f"{name}: threads"] = process.num_threads()
            figures[f"{name}: memory of its own, MB"] = own_memory(process.pid) / 1e6
        asked = list(named)[-1]
        figures[f"{asked}: tasks"] = alive["tasks"]
        # Without what the allocator holds beside them: what grows here is kept by somebody.
        figures[f"{asked}: memory blocks in use"] = alive["blocks"]
        figures["processes below the launcher"] = len(below)
        figures["zombies"] = sum(process.status() == psutil.STATUS_ZOMBIE for process in below)
        return figures


def most(name: str, first: Figures) -> float:
    """What a figure may be at the end."""
    if "memory" in name:
        return first[name] * (1 + MAX_GROWTH)
    if name == "launcher: threads" and "fork server: threads" in first:
        # asyncio's threads start when they are needed, and no route of the bot's reaches the launcher's.
        return first[name] + POOL
    return first[name]


def exceeding(first: Figures, last: Figures) -> list[str]:
    """The names of the figures that have grown by more than they may."""
    return [name for name in first if last[name] > most(name, first)]


async def soak(launcher: Launcher, calls: int, at_once: int, seconds: float | None) -> Soak:
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{launcher.port}",
        trust_env=False,
        timeout=A_CALL,
        limits=httpx.Limits(max_keepalive_connections=0),  # no connection is open when the launcher is looked at
    ) as http:
        run = Soak(launcher, http)
        upcoming = order()
        await run.fill(upcoming, at_once)
        until = time.monotonic() + (seconds or float("inf"))
        while run.calls < calls and (not run.looks or time.monotonic() < until):
            # However short of time, one round is what the others are compared with.
            await run.round(upcoming, min(ROUND, calls - run.calls), at_once, until if run.looks else float("inf"))
            figures = await run.look()
            memory = figures["launcher: memory of its own, MB"]
            blocks = next(value for name, value in figures.items() if "blocks" in name)
            rate = run.calls / run.seconds
            print(f"  {run.calls} calls, {rate:.0f}/s, launcher {memory:.1f} MB, {blocks:.0f} blocks", flush=True)
        return run


def leftovers(launcher: Launcher) -> list[psutil.Process]:
    """Processes that are still there after SIGTERM."""
    below = psutil.Process(launcher.process.pid).children(recursive=True)
    launcher.stop()
    _, alive = psutil.wait_procs(below, timeout=10)
    return alive


def report(isolation: str, run: Soak, left: int) -> bool:
    """Print the table; whether all is well."""
    (first_calls, first), (last_calls, last) = run.looks[0], run.looks[-1]
    grown = exceeding(first, last)
    print(f"PIPECAT_ISOLATION={isolation}: {run.calls} calls, {run.calls / run.seconds:.1f} calls/s")
    print(f"  {'':32} {'after ' + str(first_calls):>12} {'after ' + str(last_calls):>12}")
    for name, value in first.items():
        shown = [f"{each:.1f}" if "MB" in name else f"{each:.0f}" for each in (value, last[name])]
        print(f"  {name:32} {shown[0]:>12} {shown[1]:>12}  {'GROWN' if name in grown else 'ok'}")
    print(f"  {'left after SIGTERM':32} {'':12} {left:>12}  {'LEFT' if left else 'ok'}")
    print(f"  {'not answered as they should be':32} {'':12} {run.wrong.total():>12}  {'WRONG' if run.wrong else 'ok'}")
    for what, count in run.wrong.most_common(10):
        print(f"    {count} x {what}")
    return not grown and not left and not run.wrong


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000, help="in each mode")
    parser.add_argument("--at-once", type=int, default=20)
    parser.add_argument("--seconds", type=float, help="end a mode after so long, however many calls there were")
    parser.add_argument("--isolation", default=",".join(MODES), help="modes, with commas between")
    options = parser.parse_args()
    if options.calls <= ROUND:
        parser.error(f"--calls is to be more than {ROUND}: what there is after those is what the end is compared with")
    verdicts = []
    for isolation in options.isolation.split(","):
        variables: dict[str, Any] = {
            "PIPECAT_ISOLATION": isolation,
            "PIPECAT_GATEWAY": "1",
            "PIPECAT_ICE_SERVERS": "[]",
            "PIPECAT_LOG_LEVEL": "ERROR",
            "PIPECAT_PROCESS_TIMEOUT": str(A_CALL),  # the callers take the cores that the processes start on
            "DRAIN_NOTICE": "0",
        }
        with Launcher(HERE / "bots" / "soak", **variables) as launcher:
            run = asyncio.run(soak(launcher, options.calls, options.at_once, options.seconds))
            verdicts.append(report(isolation, run, len(leftovers(launcher))))
    sys.exit(0 if all(verdicts) else 1)


if __name__ == "__main__":
    main()
