"""Several calls in each process: PIPECAT_CALLS_PER_PROCESS."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from tests.support.bystanders import opened
from tests.support.launchers import Launcher, free_port, measured, until

BOT = """
import os, time


async def bot(args):
    await args.websocket.send_text(str(os.getpid()))
    while (said := await args.websocket.receive_text()) != "leave":
        if said == "block":
            time.sleep(60)
"""


METRICS_PORT = free_port()


def metrics() -> str:
    return httpx.get(f"http://127.0.0.1:{METRICS_PORT}/metrics", trust_env=False).text


@contextlib.contextmanager
def launched(tmp_path: Path, calls: int = 3, **variables: Any) -> Iterator[Launcher]:
    (tmp_path / "bot.py").write_text(BOT)
    modes: dict[str, Any] = {
        "PIPECAT_ISOLATION": "process",
        "PIPECAT_CALLS_PER_PROCESS": str(calls),
        "PIPECAT_GATEWAY": "1",
    }
    with Launcher(tmp_path, **{**modes, "PIPECAT_IDLE_PROCESSES": "1", **variables}) as launcher:
        yield launcher


def call(launcher: Launcher, session_id: str, **headers: str) -> tuple[ClientConnection, int]:
    """A call, and the id of the process that runs it."""
    socket = opened(f"ws://127.0.0.1:{launcher.port}/ws-client", **{"x-daily-session-id": session_id, **headers})
    return socket, int(socket.recv(timeout=10))


def hang_up(launcher: Launcher, session_id: str, socket: ClientConnection) -> None:
    socket.send("leave")
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)
    report(launcher, session_id)


def report(launcher: Launcher, session_id: str) -> dict[str, str]:
    def found() -> dict[str, str] | None:
        content: dict[str, str] = launcher.http.get(f"/sessions/{session_id}").json()
        return content if content.get("state") == "ended" else None

    content: dict[str, str] = until(found, f"the end of {session_id}")
    return content


def test_a_process_takes_so_many_calls_and_the_next_one_goes_to_another(tmp_path: Path) -> None:
    with launched(tmp_path, calls=3) as launcher:
        calls = [call(launcher, f"c{number}") for number in range(6)]
        processes = [process for _, process in calls]
        assert sorted(processes.count(process) for process in set(processes)) == [3, 3]
        for number, (socket, _) in enumerate(calls):
            hang_up(launcher, f"c{number}", socket)
        _, process = call(launcher, "later")
        assert process in processes, "a process stays after its calls"


def test_new_calls_go_to_the_process_with_the_fewest(tmp_path: Path) -> None:
    with launched(tmp_path, calls=2, PIPECAT_IDLE_PROCESSES="4", PIPECAT_METRICS_PORT=str(METRICS_PORT)) as launcher:
        until(lambda: 'state="idle"} 2' in metrics(), "four free slots")
        processes = [call(launcher, f"c{number}")[1] for number in range(2)]
        assert len(set(processes)) == 2


def test_what_ends_a_process_ends_its_calls_alone_and_says_how_many(tmp_path: Path) -> None:
    with launched(tmp_path, calls=2) as launcher:
        calls = [call(launcher, f"c{number}") for number in range(4)]
        doomed = calls[0][1]
        psutil.Process(doomed).send_signal(signal.SIGKILL)
        for number, (socket, process) in enumerate(calls):
            if process == doomed:
                with pytest.raises(ConnectionClosed) as caught:
                    socket.recv(timeout=10)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1011
                assert "SIGKILL, and with it 1 other call" in report(launcher, f"c{number}")["message"]
            else:
                hang_up(launcher, f"c{number}", socket)
                assert report(launcher, f"c{number}")["outcome"] == "completed"


def test_an_ignored_end_ends_the_process_and_says_how_many_went_with_it(tmp_path: Path) -> None:
    with launched(tmp_path, calls=2, SESSION_CANCEL_GRACE="0.2") as launcher:
        first, process = call(launcher, "blocks", **{"x-pcc-max-session-seconds": "1"})
        second, same = call(launcher, "beside")
        assert process == same
        first.send("block")
        with measured() as seconds:
            for socket in (first, second):
                with pytest.raises(ConnectionClosed):
                    socket.recv(timeout=20)
            assert seconds() < 1 + 0.2 + 3 + 1.5
        assert report(launcher, "blocks")["outcome"] == "expired"
        beside = report(launcher, "beside")
        assert (beside["outcome"], "1 other call" in beside["message"]) == ("failed", True)
        launcher.wait_for_log("killing it, and with it 1 other call")


def test_a_process_ends_after_so_many_calls(tmp_path: Path) -> None:
    with launched(tmp_path, calls=2, PIPECAT_CALLS_BEFORE_RESTART="3") as launcher:
        first, process = call(launcher, "first")
        hang_up(launcher, "second", call(launcher, "second")[0])
        third, same = call(launcher, "third")
        assert same == process
        assert call(launcher, "fourth")[1] != process, "the process has had its three calls"
        hang_up(launcher, "third", third)
        assert psutil.pid_exists(process), "its last call goes on"
        hang_up(launcher, "first", first)
        until(lambda: not psutil.pid_exists(process), "the end of the process after its last call")


def test_one_call_a_process_may_be_followed_by_another(tmp_path: Path) -> None:
    with launched(tmp_path, calls=1, PIPECAT_CALLS_BEFORE_RESTART="2") as launcher:
        socket, process = call(launcher, "first")
        hang_up(launcher, "first", socket)
        assert process in {call(launcher, f"c{number}")[1] for number in range(2)}


def test_surplus_processes_end_after_a_peak(tmp_path: Path) -> None:
    with launched(tmp_path, calls=1, PIPECAT_CALLS_BEFORE_RESTART="100") as launcher:
        calls = [call(launcher, f"c{number}") for number in range(4)]
        assert len({process for _, process in calls}) == 4
        for number, (socket, _) in enumerate(calls):
            hang_up(launcher, f"c{number}", socket)
        until(lambda: sum(psutil.pid_exists(process) for _, process in calls) <= 2, "the end of the surplus ones")


MIDDLEWARE_BOT = """
import asyncio, os
from pipecatcloud_system import app


class Middleware:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = dict(scope.get("headers", ()))
        if b"x-hang" in headers:
            await asyncio.sleep(3600)
        if b"x-early" not in headers:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b" ", "more_body": True})

        async def rest(message):
            if message["type"] != "http.response.start":
                await send(message)

        await self.app(scope, receive, rest)


app.add_middleware(Middleware)


async def bot(args):
    print("process", os.getpid(), flush=True)
    if args.body.get("ignore"):
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                pass
    await asyncio.sleep(args.body.get("seconds", 0))
"""


@pytest.fixture
def behind_middleware(tmp_path: Path) -> Iterator[Launcher]:
    (tmp_path / "bot.py").write_text(MIDDLEWARE_BOT)
    variables: dict[str, Any] = {"PIPECAT_ISOLATION": "process", "PIPECAT_IDLE_PROCESSES": "1", "MAX_SESSIONS": "1"}
    grace: dict[str, Any] = {"SESSION_CANCEL_GRACE": "0.2", "PIPECAT_CALLS_PER_PROCESS": "2", "DRAIN_NOTICE": "0"}
    with Launcher(tmp_path, **variables, **grace) as launcher:
        yield launcher


def test_a_caller_who_leaves_middleware_that_hangs_frees_the_slot(behind_middleware: Launcher) -> None:
    with pytest.raises(httpx.ReadTimeout):
        behind_middleware.http.post("/bot", headers={"x-hang": "1"}, json={}, timeout=0.5)
    until(lambda: behind_middleware.http.post("/bot", json={}).status_code == 200, "a free slot", timeout=12)
    assert behind_middleware.stop() == 0


def test_middleware_may_begin_the_response_before_the_session(behind_middleware: Launcher) -> None:
    with measured() as seconds:
        response = behind_middleware.http.post("/bot", headers={"x-early": "1"}, json={"seconds": 0.5})
        assert response.json() == {}
        assert seconds() > 0.4
    behind_middleware.wait_for_log("Session ended: completed")


def test_a_process_whose_bot_ignores_its_end_takes_no_more_calls(behind_middleware: Launcher) -> None:
    behind_middleware.http.post("/bot", headers={"x-pcc-max-session-seconds": "0.3"}, json={"ignore": True})
    behind_middleware.http.post("/bot", json={})
    until(lambda: len(behind_middleware.lines("process ")) == 2, "two calls")
    first, second = (line.split()[-1] for line in behind_middleware.lines("process "))
    assert first != second
