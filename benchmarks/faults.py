"""``make faults``: what goes wrong around a launcher, and who notices.

Each fault is done to a real launcher, in one process and with a process for each call where both can show something.
The table says what callers saw, what probes and the log said, and whether that is what was promised. The exit status
is 1 when something is not.

The clock is stepped by a ``sitecustomize`` that replaces ``time.time()`` and ``time.time_ns()`` in every process of the
launcher's: a time namespace has no clock of the day, and setting the machine's own would be everybody's.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from benchmarks.__main__ import HERE
from tests.support.browser_peer import Browser
from tests.support.bystanders import Bystander, Bystanders, opened
from tests.support.callers import close_code, probe
from tests.support.daily_api import DailyApi
from tests.support.graph_api import NUMBER, SECRET, TOKEN, call_id, deliver
from tests.support.graph_api import connect as ringing
from tests.support.launchers import ROOT, Launcher, until
from tests.support.offers import SDP, wait_for_offer

SOAK = HERE / "bots" / "soak"
"""Echoes text over WebSockets, stays or returns as its body says."""
BOTH = ("none", "process")
QUIET = {"DRAIN_NOTICE": "0", "PIPECAT_ICE_SERVERS": "[]"}
IN_TIME = 8.0
"""Seconds that an end may take on a busy machine."""
A_GAP = 0.05
"""Seconds that 99 % of a bystander's echoes may take, in the best of three rounds."""
OFFER = {"sdp": SDP, "type": "offer"}


@dataclass
class Seen:
    """What a fault showed.

    Attributes:
        callers: What callers saw.
        told: What probes and the log said.
        wrong: What is not as it was promised.
    """

    callers: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def caller(self, what: str, found: object, *wanted: object) -> None:
        """Something that a caller saw, and what would have been right."""
        self.callers.append(f"{what}: {found}")
        self._check(what, found, wanted)

    def tell(self, what: str, found: object, *wanted: object) -> None:
        """Something that a probe, the log or the exit status said, and what would have been right."""
        self.told.append(f"{what}: {found}")
        self._check(what, found, wanted)

    def _check(self, what: str, found: object, wanted: tuple[object, ...]) -> None:
        if found not in wanted:
            self.wrong.append(f"{what} is {found}, not {' or '.join(map(str, wanted))}")

    def logged(self, launcher: Launcher, text: str, most: int | None = None) -> None:
        """The log has this, and not more often than it may."""
        count = launcher.log().count(text)
        self.told.append(f"log: {text!r}" + (f" {count} times" if count != 1 else ""))
        if not count or (most is not None and count > most):
            self.wrong.append(f"the log has {text!r} {count} times")


@dataclass(frozen=True)
class Fault:
    """A row of the table, for each mode."""

    name: str
    modes: tuple[str, ...]
    show: Callable[[str, Seen], None]


FAULTS: list[Fault] = []
Show = Callable[[str, Seen], None]


def fault(name: str, modes: tuple[str, ...] = BOTH) -> Callable[[Show], Show]:
    """Put a function into the table: it does what it is named after, and notes what it sees."""

    def add(show: Show) -> Show:
        FAULTS.append(Fault(name, modes, show))
        return show

    return add


def launch(mode: str, bot: str | Path = SOAK, **options: Any) -> Launcher:
    return Launcher(bot, **{**QUIET, "PIPECAT_ISOLATION": mode, "PIPECAT_GATEWAY": "1", **options})


def url(launcher: Launcher) -> str:
    return launcher.websocket_url("/ws-client")


def ready(launcher: Launcher) -> str:
    """What a load balancer would see."""
    answer = probe(launcher, "/readyz")
    return f"{answer.status_code} {answer.json().get('state', '')}".strip()


def status(launcher: Launcher, path: str = "/bot", body: Any = None) -> int:
    return launcher.http.post(path, json=body or {}).status_code


def below(launcher: Launcher) -> list[psutil.Process]:
    return psutil.Process(launcher.process.pid).children(recursive=True)


def ends(seen: Seen, launcher: Launcher, *wanted: int) -> None:
    """It ends in time, with this exit status, and leaves no process."""
    try:
        seen.tell("exit status", launcher.wait(IN_TIME), *wanted)
    except subprocess.TimeoutExpired:
        seen.wrong.append(f"it did not end within {IN_TIME:g} s")


@contextlib.contextmanager
def leaving_nothing(seen: Seen, launcher: Launcher) -> Iterator[None]:
    everyone = below(launcher)
    yield
    _, alive = psutil.wait_procs(everyone, timeout=IN_TIME)
    seen.tell("processes left", len(alive), 0)


@contextlib.contextmanager
def nobody_else_notices(seen: Seen, launcher: Launcher) -> Iterator[None]:
    """Two calls beside it lose no frame."""
    with Bystanders(launcher) as others:
        time.sleep(0.2)
        yield
        time.sleep(0.2)
    seen.caller("frames that others lost", others.lost, 0)


# Signals.


@fault("SIGTERM while bot.py is imported")
def _(mode: str, seen: Seen) -> None:
    ends_while(mode, seen, "slow_import", "importing")


@fault("SIGTERM in setup()")
def _(mode: str, seen: Seen) -> None:
    ends_while(mode, seen, "slow_setup", "setting up")


def ends_while(mode: str, seen: Seen, bot: str, line: str) -> None:
    # A gateway would let the caller wait for the loop that is to come.
    with launch(mode, bot, wait=False, PIPECAT_GATEWAY="0") as launcher:
        launcher.wait_for_log(line)
        seen.tell("/livez", probe(launcher, "/livez").status_code, 200)
        seen.tell("/readyz", ready(launcher), "503 starting")
        seen.caller("POST /bot", status(launcher), 503)
        with leaving_nothing(seen, launcher):
            launcher.signal()
            ends(seen, launcher, 143)


@fault("SIGTERM when ready and idle")
def _(mode: str, seen: Seen) -> None:
    with launch(mode, DRAIN_NOTICE="0.5") as launcher, leaving_nothing(seen, launcher):
        launcher.signal()
        launcher.wait_for_log("Draining")
        seen.tell("/readyz", ready(launcher), "503 draining")
        seen.caller("POST /bot", status(launcher), 503)
        ends(seen, launcher, 0)


@fault("SIGTERM while a session waits for its offer")
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher, ThreadPoolExecutor() as pool, leaving_nothing(seen, launcher):
        waiting = pool.submit(wait_for_offer, launcher, "waiting", {})
        until(lambda: launcher.http.get("/sessions").json()["sessions"], "the session")
        launcher.signal()
        launcher.wait_for_log("Draining")
        seen.tell("/readyz", ready(launcher), "503 draining")

        async def meet() -> int:
            async with Browser(f"http://127.0.0.1:{launcher.port}", session="waiting", audio_only=True) as browser:
                answer = await browser.offer(requestData={"do": "leave"})
                if answer.status_code == 200:
                    await asyncio.wait_for(browser.ended.wait(), 20)
                return answer.status_code

        seen.caller("its offer", asyncio.run(meet()), 200)
        seen.caller("POST /bot", waiting.result().status_code, 200)
        ends(seen, launcher, 0)


@fault("SIGTERM while a call runs")
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher, leaving_nothing(seen, launcher):
        with nobody_else_notices(seen, launcher):
            launcher.signal()
            launcher.wait_for_log("Draining: sessions running: 2")
            seen.tell("/livez", probe(launcher, "/livez").status_code, 200)
            seen.tell("/readyz", ready(launcher), "503 draining")
            seen.caller("new call", status(launcher), 503)
        ends(seen, launcher, 0)


@fault("a second SIGTERM while it drains")
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher, leaving_nothing(seen, launcher):
        call = opened(url(launcher))
        launcher.wait_for_log("Session started")
        launcher.signal()
        launcher.wait_for_log("Draining: sessions running: 1")
        launcher.signal()
        seen.caller("close code", close_code(call), 1001)
        ends(seen, launcher, 143)


@fault("SIGKILL of the launcher during calls, and a restart on its port")
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher, ThreadPoolExecutor() as pool:
        call = opened(url(launcher))
        call.send("hello")
        call.recv(timeout=20)
        posted: Future[httpx.Response] = pool.submit(launcher.http.post, "/bot", json={"do": "stay"})
        until(lambda: len(launcher.lines("Session started")) == 2, "both calls")
        with leaving_nothing(seen, launcher):
            launcher.signal(signal.SIGKILL)
            # A call's process still says goodbye to its caller before it ends with the launcher.
            seen.caller("WebSocket", close_code(call) or 1006, *((1006,) if mode == "none" else (1001, 1006)))
            seen.caller("POST /bot", type(posted.exception()).__name__, "ReadError", "RemoteProtocolError")
            seen.tell("exit status", launcher.wait(), -signal.SIGKILL)
        with launch(mode, port=launcher.port) as again:
            seen.tell("/readyz of the next", ready(again), "200")
            seen.caller("next call", status(again), 200)


# Deaths of processes below it.


def served_again(launcher: Launcher) -> int:
    """A call after the pool has had a moment."""
    until(lambda: launcher.is_ready(), "ready again")
    return status(launcher)


@fault("SIGKILL of a call's process", ("process",))
def _(mode: str, seen: Seen) -> None:
    with launch(mode, "isolation") as launcher:
        with nobody_else_notices(seen, launcher):
            call = opened(url(launcher))
            call.send("who")
            os.kill(int(str(call.recv(timeout=20)).split()[0]), signal.SIGKILL)
            seen.caller("close code", close_code(call), 1011)
            seen.tell("/readyz", ready(launcher), "200")
        launcher.wait_for_log("killed by SIGKILL")
        seen.logged(launcher, "killed by SIGKILL")
        seen.caller("next call", served_again(launcher), 200)


@fault("SIGKILL of a process that waits for a call", ("process",))
def _(mode: str, seen: Seen) -> None:
    with launch(mode, PIPECAT_IDLE_PROCESSES="2") as launcher:
        lead = launcher.http.get("/alive").json()["pid"]
        until(lambda: len(below(launcher)) == 5, "a full pool")
        idle = [process for process in below(launcher) if not process.children() and process.pid != lead]
        for process in idle:
            process.kill()
        until(lambda: not any(process.is_running() for process in idle), "their ends to be noticed")
        until(lambda: len(below(launcher)) == 5, "a full pool")
        seen.caller("next call", status(launcher), 200)
        seen.tell("/readyz", ready(launcher), "200")


@fault("SIGKILL of the template", ("process",))
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher:
        call = opened(url(launcher))  # of a process that the template has made, so it ends with it
        launcher.wait_for_log("Session started")
        (fork_server,) = psutil.Process(launcher.process.pid).children()
        fork_server.children()[0].kill()
        seen.caller("close code", close_code(call), 1011)
        launcher.wait_for_log("importing the bot again")
        seen.logged(launcher, "importing the bot again")
        seen.caller("next call", served_again(launcher), 200)
        seen.tell("/readyz", ready(launcher), "200")


@fault("SIGKILL of the fork server", ("process",))
def _(mode: str, seen: Seen) -> None:
    with launch(mode) as launcher, leaving_nothing(seen, launcher):
        call = opened(url(launcher))
        launcher.wait_for_log("Session started")
        psutil.Process(launcher.process.pid).children()[0].kill()
        seen.caller("close code", close_code(call), 1011)
        ends(seen, launcher, 70)


# Disks.


@contextlib.contextmanager
def tiny_disk(kilobytes: int) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """A folder, and what to put before a command that is to find so little room there."""
    with tempfile.TemporaryDirectory() as folder:
        mounting = f'mount -t tmpfs -o size={kilobytes}k tmpfs {folder} && exec "$@"'
        yield Path(folder), ("unshare", "--mount", "sh", "-c", mounting, "-")


def can_mount() -> bool:
    with tiny_disk(64) as (_, prefix):
        return (
            shutil.which("unshare") is not None
            and not subprocess.run([*prefix, "true"], capture_output=True).returncode
        )


def a_process_each(mode: str) -> int | None:
    """Complaints about PCC_LOG_DIR in a minute: one of each process."""
    return 2 if mode == "none" else None


@fault("the disk of PCC_LOG_DIR is full")
def _(mode: str, seen: Seen) -> None:
    with tiny_disk(4) as (folder, prefix), launch(mode, prefix=prefix, PCC_LOG_DIR=str(folder)) as launcher:
        with nobody_else_notices(seen, launcher):
            found = {status(launcher) for _ in range(30)}
        seen.caller("30 calls", found, {200})
        seen.logged(launcher, "cannot be written: No space left on device", a_process_each(mode))
        seen.tell("/readyz", ready(launcher), "200")
        launcher.signal()
        ends(seen, launcher, 0)


@fault("files may not grow (ulimit -f): PCC_LOG_DIR")
def _(mode: str, seen: Seen) -> None:
    # The console goes through a pipe to where it may grow.
    limited = ("sh", "-c", 'trap "" XFSZ; ulimit -f 16; exec "$@"', "-")
    with (
        tempfile.TemporaryDirectory() as folder,
        launch(mode, prefix=limited, PCC_LOG_DIR=folder, PIPECAT_LOG_LEVEL="WARNING") as launcher,
    ):
        (Path(folder) / "bot.jsonl").write_bytes(b"\n" * 16 * 512)
        with nobody_else_notices(seen, launcher):
            found = {status(launcher, body={"do": "raise"}) for _ in range(5)}
        seen.caller("5 calls of a bot that raises", found, {500})
        seen.logged(launcher, "cannot be written: File too large", a_process_each(mode))
        seen.tell("/readyz", ready(launcher), "200")


@fault("the disk of PIPECAT_UPLOADS_FOLDER is full")
def _(mode: str, seen: Seen) -> None:
    with (
        tiny_disk(64) as (folder, prefix),
        launch(mode, prefix=prefix, PIPECAT_UPLOADS_FOLDER=str(folder)) as launcher,
        nobody_else_notices(seen, launcher),
    ):
        large = launcher.http.post("/files", files={"file": ("large", b"x" * 300_000)})
        seen.caller(
            "a file that does not fit",
            f"{large.status_code} {large.json()['error']['code']}",
            "500 storage_failed",
            "502 storage_failed",
            "507 storage_failed",
        )
        seen.caller("one that does", launcher.http.post("/files", files={"file": ("small", b"x")}).status_code, 200)
        seen.logged(launcher, "No space left on device")
        seen.tell("/readyz", ready(launcher), "200")


# Services that are not there, or not well.


class Service:
    """An HTTP server that hangs, refuses, or answers what nobody can read."""

    def __init__(self, how: str) -> None:
        self._answer = {
            "answers rubbish": b"\x00\xff\xfe no HTTP at all\r\n\r\n",
            "answers with a page": b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\n<html>",
            "answers 500": b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        }.get(how)
        self._sock = socket.socket()
        self._open: list[socket.socket] = []
        self._sock.bind(("127.0.0.1", 0))
        if how != "refuses":
            self._sock.listen(50)
            threading.Thread(target=self._serve, daemon=True).start()
        host = "name.invalid" if how == "has no address" else "127.0.0.1"
        self.url = f"http://{host}:{self._sock.getsockname()[1]}"

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._sock.accept()
                self._open.append(sock)
                sock.recv(65536)
                if self._answer is not None:
                    sock.sendall(self._answer)
                    sock.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *error: object) -> None:
        for sock in (self._sock, *self._open):
            sock.close()


HOW = ("has no address", "refuses", "hangs", "answers rubbish", "answers with a page", "answers 500")


def ice_config(how: str) -> Show:
    def show(mode: str, seen: Seen) -> None:
        with Service(how) as service:
            variables: dict[str, Any] = {"ICE_CONFIG_URL": f"{service.url}/ice", "PIPECAT_ICE_SERVERS": None}
            with launch(mode, **variables) as launcher, nobody_else_notices(seen, launcher):
                seen.caller("an offer", launcher.http.post("/api/offer", json=OFFER).status_code, 200)
                if how != "hangs":
                    seen.logged(launcher, "did not give ICE servers", 1)
                seen.tell("/readyz", ready(launcher), "200")

    return show


def daily_api(how: str) -> Show:
    def show(mode: str, seen: Seen) -> None:
        with Service(how) as service:
            variables: dict[str, Any] = {
                "DAILY_API_URL": f"{service.url}/v1",
                "DAILY_API_KEY": DailyApi.key,
                "MAX_SESSIONS": "3",
            }
            with launch(mode, **variables) as launcher, nobody_else_notices(seen, launcher):
                seen.caller("POST /start with a room", status(launcher, "/start", {"createDailyRoom": True}), 502)
                seen.caller("its place for a next call", status(launcher), 200)
                seen.tell("/readyz", ready(launcher), "200")
                seen.tell("Daily's key in the log", DailyApi.key in launcher.log(), False)

    return show


def graph_api(how: str) -> Show:
    def show(mode: str, seen: Seen) -> None:
        with Service(how) as service:
            variables: dict[str, Any] = {
                "GRAPH_URL": f"{service.url}/v23.0/",
                "PYTHONPATH": str(ROOT / "tests" / "support" / "graph_site"),
                "WHATSAPP_TOKEN": TOKEN,
                "WHATSAPP_PHONE_NUMBER_ID": NUMBER,
                "WHATSAPP_APP_SECRET": SECRET,
            }
            with launch(mode, **variables) as launcher, nobody_else_notices(seen, launcher):
                answer = deliver(launcher, ringing(call_id(), SDP))
                seen.caller("Meta's webhook", answer.status_code, 200, 500, 502)
                until(lambda: len(launcher.http.get("/sessions").json()["sessions"]) == 2, "the end of the call")
                seen.tell(
                    "lines of it above INFO",
                    len(launcher.lines("| WARNING")) + len(launcher.lines("| ERROR")) > 0,
                    True,
                )
                seen.tell("/readyz", ready(launcher), "200")
                seen.tell("Meta's token in the log", TOKEN in launcher.log(), False)

    return show


def modes_of(how: str) -> tuple[str, ...]:
    """What differs in an answer alone is the same in both modes."""
    return BOTH if how == "has no address" else ("none",)


FAULTS.extend(Fault(f"ICE_CONFIG_URL {how}", modes_of(how), ice_config(how)) for how in HOW)
FAULTS.extend(Fault(f"DAILY_API_URL {how}", modes_of(how), daily_api(how)) for how in HOW)
FAULTS.extend(Fault(f"Meta's Graph API {how}", BOTH, graph_api(how)) for how in ("has no address", "refuses"))


@fault("a STUN server's name has no address")
def _(mode: str, seen: Seen) -> None:
    with (
        launch(mode, PIPECAT_ICE_SERVERS="stun:name.invalid:3478") as launcher,
        nobody_else_notices(seen, launcher),
    ):
        seen.caller("an offer", launcher.http.post("/api/offer", json=OFFER).status_code, 200)
        seen.tell("/readyz", ready(launcher), "200")


# The machine.


def step(by: int) -> Show:
    def show(mode: str, seen: Seen) -> None:
        with tempfile.TemporaryDirectory() as folder:
            clock = Path(folder) / "step"
            variables: dict[str, Any] = {
                "CLOCK_STEP": str(clock),
                "PYTHONPATH": str(HERE / "clock_site"),
                "MAX_SESSION_SECONDS": "60",
            }
            with launch(mode, **variables) as launcher, ThreadPoolExecutor() as pool:
                bounded = {"x-pcc-max-session-seconds": "2"}
                with nobody_else_notices(seen, launcher):
                    waiting = launcher.http.post("/start", json={"transport": "webrtc"}).json()["sessionId"]
                    posted = pool.submit(launcher.http.post, "/bot", json={"do": "stay"}, headers=bounded)
                    until(lambda: len(launcher.lines("Session started")) == 3, "the call")
                    clock.write_text(str(by))
                    began = time.monotonic()
                    time.sleep(0.5)
                    ages = [session["age"] for session in launcher.http.get("/sessions").json()["sessions"]]
                    seen.caller("ages below a minute", all(0 <= age < 60 for age in ages), True)
                    seen.caller("the session that waits", waiting in launcher.http.get("/sessions").text, True)
                    answer = posted.result()
                    seen.caller(
                        "one limited to 2 s", answer.headers["x-pipecat-session-outcome"], "expired", "timed_out"
                    )
                    seen.caller(
                        "it went on for",
                        "about 2 s" if 1 < time.monotonic() - began < 6 else "another time",
                        "about 2 s",
                    )
                    seen.caller("new call", status(launcher), 200)
                    seen.tell("/readyz", ready(launcher), "200")

    return show


FAULTS.append(Fault("the clock is set an hour on", BOTH, step(3600)))
FAULTS.append(Fault("the clock is set an hour back", BOTH, step(-3600)))


@fault("ulimit -n 64, and 200 connections")
def _(mode: str, seen: Seen) -> None:
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "-")
    with launch(mode, prefix=limited, PIPECAT_MAX_CONNECTIONS="1000") as launcher:
        with nobody_else_notices(seen, launcher):
            idle = [socket.create_connection(("127.0.0.1", launcher.port), timeout=20) for _ in range(200)]
            time.sleep(0.5)
            seen.tell("/livez", probe(launcher, "/livez").status_code, 200)
            for sock in idle:
                sock.close()
        seen.logged(launcher, "No connection can be accepted", 2)
        seen.caller("next call", served_again(launcher), 200)


@fault("ulimit -n 64, and 30 calls at once")
def _(mode: str, seen: Seen) -> None:
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "-")
    with launch(mode, prefix=limited) as launcher:
        with nobody_else_notices(seen, launcher):
            calls, refused = [], set()
            for _ in range(30):
                try:
                    calls.append(connect(url(launcher), proxy=None, open_timeout=20).__enter__())
                except InvalidStatus as error:
                    refused.add(error.response.status_code)
            good = 0
            for call in calls:
                with contextlib.suppress(ConnectionClosed):
                    call.send("hello")
                    good += call.recv(timeout=20) == "hello"
            seen.caller(
                "calls that were let in and are answered", f"{good} of {len(calls)}", f"{len(calls)} of {len(calls)}"
            )
            seen.caller("the others", refused or "none", {503}, "none")
            seen.tell("/livez", probe(launcher, "/livez").status_code, 200)
            for call in calls:
                call.close()
        seen.caller("next call", served_again(launcher), 200)


REFUSED = "1,000 refused calls beside one (MAX_SESSIONS=1)"


@fault(REFUSED)
def _(mode: str, seen: Seen) -> None:
    with launch(mode, MAX_SESSIONS="1", PIPECAT_LOG_LEVEL="WARNING") as launcher:
        gaps: list[float] = []
        found: set[int] = set()
        lost = 0
        while len(gaps) < 3 and min(gaps, default=A_GAP) >= A_GAP:
            call = Bystander(launcher)
            time.sleep(0.2)
            connection = http.client.HTTPConnection("127.0.0.1", launcher.port, timeout=20)
            for _ in range(1000):
                connection.request("POST", "/bot", b"{}", {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                found.add(answer.status)
            seen.told = [f"/readyz: {ready(launcher)}"]
            connection.close()
            call.end()
            gaps.append(call.p99())
            lost += call.sent - len(call.latencies)
        seen.caller("the refused", found, {429})
        seen.caller("frames lost", lost, 0)
        within = "below" if min(gaps) < A_GAP else f"{min(gaps) * 1000:.0f} ms, above"
        seen.caller("99 % of its echoes", f"{within} {A_GAP * 1000:.0f} ms", f"below {A_GAP * 1000:.0f} ms")
        until(lambda: ready(launcher) == "200", "a free place")
        seen.caller("next call", status(launcher), 200)


def run(one: Fault, mode: str) -> Seen:
    seen = Seen()
    try:
        one.show(mode, seen)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        seen.wrong.append(f"{type(error).__name__}: {first}")
    return seen


def row(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("--only", default="", help="those whose name has this in it")
    parser.add_argument("--isolation", default=",".join(BOTH), help="modes, with commas between")
    parser.add_argument("--at-once", type=int, default=3, help="most of them wait; the last one has the machine alone")
    options = parser.parse_args()
    modes = options.isolation.split(",")
    wanted = [(one, mode) for one in FAULTS if options.only in one.name for mode in one.modes if mode in modes]
    if not can_mount():
        for name in dict.fromkeys(one.name for one, _ in wanted if "disk of" in one.name):
            print(f"{name}: not tried, no tmpfs can be mounted here", flush=True)
        wanted = [(one, mode) for one, mode in wanted if "disk of" not in one.name]
    failed = 0
    table = sys.stdout
    print(row("fault", "isolation", "what callers saw", "what probes and log said", "verdict"), flush=True)
    print(row(*["---"] * 5), flush=True)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # a launcher that fails prints its log
        for are_alone in (False, True):
            group = [(one, mode) for one, mode in wanted if (one.name == REFUSED) == are_alone]
            with ThreadPoolExecutor(1 if are_alone else options.at_once) as pool:
                for (one, mode), seen in zip(group, pool.map(lambda pair: run(*pair), group), strict=True):
                    verdict = f"WRONG: {'; '.join(seen.wrong)}" if seen.wrong else "ok"
                    failed += bool(seen.wrong)
                    cells = (one.name, mode, "; ".join(seen.callers), "; ".join(seen.told), verdict)
                    print(row(*cells), file=table, flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
