"""One call's bot does its worst; two others go on."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.bystanders import Bystanders, opened
from tests.support.launchers import Launcher, until

MAX_SECONDS = "x-pcc-max-session-seconds"


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    variables: dict[str, Any] = {"PIPECAT_ISOLATION": "process", "SESSION_CANCEL_GRACE": "0.5", "PIPECAT_GATEWAY": "1"}
    with Launcher("isolation", **variables, MAX_SESSION_MEMORY_BYTES=str(250 * 2**20)) as running:
        yield running


def url(launcher: Launcher) -> str:
    return f"ws://127.0.0.1:{launcher.port}/ws-client"


def misbehave(launcher: Launcher, deed: str, session_id: str, **headers: str) -> ClientConnection:
    socket = opened(url(launcher), **{"x-daily-session-id": session_id, **headers})
    socket.send(deed)
    return socket


def close_of(socket: ClientConnection) -> tuple[int, str]:
    with pytest.raises(ConnectionClosed) as caught:
        while True:
            socket.recv(timeout=20)
    frame = caught.value.rcvd
    assert frame is not None, "closed without a close frame: a phone company sees 1006"
    return frame.code, frame.reason


def ended(launcher: Launcher, session_id: str) -> dict[str, str]:
    def report() -> dict[str, str] | None:
        content: dict[str, str] = launcher.http.get(f"/sessions/{session_id}").json()
        return content if content.get("state") == "ended" else None

    found: dict[str, str] = until(report, f"the end of {session_id}")
    return found


DEEDS = {
    "fail": (1011, "The bot raised ValueError; its log has the traceback."),
    "exit_python": (1011, "The bot called sys.exit() with a status other than 0."),
    "exit_now": (1011, "The bot's process ended with exit status 3."),
    "crash": (1011, "The bot's process was killed by SIGSEGV."),
    "be_killed": (1011, "The bot's process was killed by SIGKILL."),
    "eat": (1011, f"The bot's process was ended, as it had more than {250 * 2**20} bytes (MAX_SESSION_MEMORY_BYTES)."),
    "eat_in_child": (
        1011,
        f"The bot's process was ended, as it had more than {250 * 2**20} bytes (MAX_SESSION_MEMORY_BYTES).",
    ),
    "kill_group": (1011, "The bot's process was killed by SIGKILL."),
    "run_script_that_kills": (1011, "The bot's process was killed by SIGKILL."),
    "close_all": (1011, "The bot's process ended with exit status 1."),  # the event loop without its own descriptors
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_process_that_dies_ends_one_call(launcher: Launcher, deed: str) -> None:
    code, message = DEEDS[deed]
    session_id = f"s-{deed}"
    with Bystanders(launcher) as others:
        socket = misbehave(launcher, deed, session_id)
        assert close_of(socket)[0] == code
        assert launcher.http.get("/livez").status_code == launcher.http.get("/readyz").status_code == 200
        report = ended(launcher, session_id)
    assert others.lost == 0
    assert (report["outcome"], report["message"]) == ("failed", message)
    launcher.wait_for_log(f"| {session_id} - Session ended: failed")


@pytest.mark.parametrize("deed", ["sleep", "spin", "hold_lock", "ignore_cancellation"])
def test_a_process_that_does_not_end_is_killed(launcher: Launcher, deed: str) -> None:
    session_id = f"s-{deed}"
    with Bystanders(launcher) as others:
        socket = misbehave(launcher, deed, session_id, **{MAX_SECONDS: "1"})
        code, _ = close_of(socket)
        report = ended(launcher, session_id)
        assert launcher.http.get("/livez").status_code == launcher.http.get("/readyz").status_code == 200
    assert others.lost == 0
    assert (code, report["outcome"]) in {(4008, "expired"), (4009, "cancelled")}


@pytest.mark.parametrize("deed", ["leave_child", "leave_session", "leave_daemon"])
@pytest.mark.parametrize("end", ["bye", "exit_now"])
def test_children_of_a_bot_end_with_its_call(launcher: Launcher, deed: str, end: str) -> None:
    before = len(launcher.said())
    with Bystanders(launcher) as others:
        with misbehave(launcher, deed, f"s-{deed}-{end}") as socket:
            child = until(lambda: launcher.said()[before:], "its child")[0]["child"]
            assert psutil.pid_exists(child)
            socket.send(end)
            socket.recv(timeout=20) if end == "bye" else close_of(socket)
        until(lambda: not psutil.pid_exists(child), "the end of the child")
    assert others.lost == 0


@pytest.mark.parametrize("deed", ["leave_hopper", "leave_hopper_in_session"])
def test_a_child_that_keeps_forking_ends_too(launcher: Launcher, deed: str) -> None:
    before = len(launcher.said())
    with misbehave(launcher, deed, f"s-{deed}") as socket:
        child = until(lambda: launcher.said()[before:], "its child")[0]["child"]
        socket.send("who")
        worker = int(str(socket.recv(timeout=20)).split()[0])
        group = child if deed.endswith("session") else worker

    def is_over() -> bool:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        return False

    until(is_over, "the end of the group")


def test_children_of_a_bot_outlive_other_calls(launcher: Launcher) -> None:
    before = len(launcher.said())
    with misbehave(launcher, "leave_daemon", "s-stays") as socket:
        daemon = until(lambda: launcher.said()[before:], "its child")[0]["child"]
        with misbehave(launcher, "leave_session", "s-leaves"):
            other = until(lambda: launcher.said()[before + 1 :], "the other's child")[0]["child"]
        until(lambda: not psutil.pid_exists(other), "the end of the other's child")
        assert psutil.pid_exists(daemon)
        socket.send("still here")
        assert socket.recv(timeout=20) == "still here"


@pytest.mark.parametrize("deed", ["move_child_to_another_call", "move_child_to_the_launchers_group"])
def test_a_child_in_the_process_group_of_another_call_takes_no_call_with_it(launcher: Launcher, deed: str) -> None:
    before = len(launcher.said())
    with Bystanders(launcher) as others:
        with misbehave(launcher, deed, "s-mover") as socket:
            socket.send("still here")
            assert socket.recv(timeout=20) == "still here"
        assert ended(launcher, "s-mover")["outcome"] in {"completed", "disconnected"}
        child = launcher.said()[before]["child"]
        until(lambda: not psutil.pid_exists(child), "the end of the child")
    assert others.lost == 0
    assert launcher.http.get("/readyz").status_code == 200


@pytest.mark.parametrize("deed", ["send_large", "send_frames", "send_ill_typed", "send_flood"])
def test_messages_from_a_worker_are_bounded(launcher: Launcher, deed: str) -> None:
    front = psutil.Process(launcher.process.pid)
    tracebacks = launcher.log().count("Traceback")
    with Bystanders(launcher) as others:
        before = front.memory_info().rss
        code, _ = close_of(misbehave(launcher, deed, f"s-{deed}"))
        report = ended(launcher, f"s-{deed}")
        assert launcher.http.get("/livez").status_code == launcher.http.get("/readyz").status_code == 200
    assert others.lost == 0
    assert (code, report["outcome"]) == (1011, "failed")
    assert report["message"].startswith("The bot's process was killed, as it sent ")
    assert launcher.log().count("Traceback") == tracebacks
    assert len(launcher.lines(f"| s-{deed} - Session ended: failed")) == 1
    assert front.memory_info().rss - before < 20 * 2**20


def test_no_two_calls_share_a_process_group(launcher: Launcher) -> None:
    with contextlib.ExitStack() as calls:
        groups = []
        for _ in range(2):
            socket = calls.enter_context(connect(url(launcher)))
            socket.send("who")
            groups.append(os.getpgid(int(str(socket.recv(timeout=20)).split()[0])))
        groups += [os.getpgid(process.pid) for process in processes(launcher)[:2]]
        assert len({*groups, os.getpgid(launcher.process.pid)}) == 5


def test_a_bot_that_cancels_every_task_ends_its_own_call(launcher: Launcher) -> None:
    with Bystanders(launcher) as others:
        code, _ = close_of(misbehave(launcher, "cancel_all", "s-cancel_all"))
        report = ended(launcher, "s-cancel_all")
        assert launcher.http.get("/livez").status_code == launcher.http.get("/readyz").status_code == 200
    assert others.lost == 0
    # Its own task is one of them, those of its process are others: whichever ends first.
    assert (code, report["outcome"]) in {(4009, "cancelled"), (1011, "failed")}


@pytest.mark.parametrize("deed", ["many_tasks", "take_signals", "start_thread"])
def test_a_bot_that_harms_no_other_call_is_not_ended(launcher: Launcher, deed: str) -> None:
    with Bystanders(launcher) as others, misbehave(launcher, deed, f"s-{deed}") as socket:
        socket.send("still here")
        assert socket.recv(timeout=20) == "still here"
    assert others.lost == 0
    assert ended(launcher, f"s-{deed}")["outcome"] in {"completed", "disconnected"}


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        ("exit_now", "The bot's process ended with exit status 3."),
        ("crash", "The bot's process was killed by SIGSEGV."),
        ("fail", "The bot raised ValueError; its log has the traceback."),
    ],
)
def test_the_response_says_how_a_process_died(launcher: Launcher, deed: str, message: str) -> None:
    answer = launcher.http.post("/bot", json={"do": deed}, headers={"x-daily-session-id": f"p-{deed}"})
    assert answer.status_code == 500
    assert answer.json() == {"error": {"code": "bot_failed", "message": message, "session_id": f"p-{deed}"}}
    assert answer.headers["x-pipecat-session-outcome"] == "failed"


def test_a_blocked_bot_can_be_stopped_by_request(launcher: Launcher) -> None:
    socket = misbehave(launcher, "spin", "stopped")
    until(lambda: launcher.lines("| stopped - Session started"), "its start")
    assert launcher.http.delete("/sessions/stopped").status_code == 200
    assert close_of(socket) == (4009, "the session was cancelled")
    assert ended(launcher, "stopped")["outcome"] == "cancelled"


def test_a_blocked_bot_is_ended_after_its_caller_has_hung_up(launcher: Launcher) -> None:
    socket = misbehave(launcher, "spin", "left")
    until(lambda: launcher.lines("| left - Session started"), "its start")
    socket.socket.close()
    assert ended(launcher, "left")["outcome"] == "disconnected"


def test_each_call_has_a_process_and_module_globals_of_its_own(launcher: Launcher) -> None:
    seen = set()
    for _ in range(3):
        with connect(url(launcher)) as socket:
            socket.send("who")
            pid, calls = str(socket.recv(timeout=20)).split()
            seen.add(pid)
            assert calls == "1"
    assert len(seen) == 3


def test_a_process_that_is_killed_from_outside_costs_one_call(launcher: Launcher) -> None:
    with Bystanders(launcher) as others:
        socket = opened(url(launcher), **{"x-daily-session-id": "killed"})
        socket.send("who")
        os.kill(int(str(socket.recv(timeout=20)).split()[0]), signal.SIGKILL)
        assert close_of(socket)[0] == 1011
    assert others.lost == 0
    assert ended(launcher, "killed")["message"] == "The bot's process was killed by SIGKILL."


def processes(launcher: Launcher) -> list[psutil.Process]:
    return psutil.Process(launcher.process.pid).children(recursive=True)


@contextlib.contextmanager
def pool(bot: str | Path = "isolation", **variables: Any) -> Iterator[Launcher]:
    with Launcher(bot, PIPECAT_ISOLATION="process", DRAIN_NOTICE="0", **variables) as running:
        yield running


def test_a_killed_launcher_leaves_no_process_behind() -> None:
    with pool() as launcher:
        sockets = [opened(url(launcher)) for _ in range(2)]
        for socket in sockets:
            socket.send("spin")
        until(lambda: len(launcher.lines("Session started")) == 2, "their start")
        left = processes(launcher)
        assert len(left) >= 5
        launcher.process.kill()
        _, alive = psutil.wait_procs(left, timeout=5)
        assert alive == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_every_process_drains(number: signal.Signals) -> None:
    with pool() as launcher, connect(url(launcher)) as socket:
        socket.send("hello")
        assert socket.recv(timeout=20) == "hello"
        everyone = processes(launcher)
        for process in [*everyone, psutil.Process(launcher.process.pid)]:
            process.send_signal(number)
        launcher.wait_for_log("Draining: sessions running: 1")
        socket.send("still here")
        assert socket.recv(timeout=20) == "still here"
        socket.close()
        assert launcher.wait() == 0
        _, alive = psutil.wait_procs(everyone, timeout=5)
        assert alive == []


def test_calls_leave_no_process_no_descriptor_and_no_zombie_behind() -> None:
    with pool(PIPECAT_IDLE_PROCESSES="2") as launcher:
        front = psutil.Process(launcher.process.pid)
        seen: list[tuple[int, int]] = []

        def is_full() -> bool:
            """Fork server, template, control worker and two idle workers, with no other descriptor."""
            seen.append((len(processes(launcher)), front.num_fds()))
            return seen[-1][0] == 5

        def call(number: int) -> None:
            with httpx.Client() as client:
                client.post(f"http://127.0.0.1:{launcher.port}/bot", json={"do": "exit_now" if number % 2 else "x"})

        for number in range(2):
            call(number)
        until(is_full, "the pool to be full")
        before = seen[-1][1]
        for number in range(40):
            call(number)
        until(lambda: is_full() and seen[-1][1] <= before, "as few as before")
        assert not [process for process in processes(launcher) if process.status() == psutil.STATUS_ZOMBIE]


def test_an_idle_worker_that_has_died_costs_no_call() -> None:
    with pool(PIPECAT_IDLE_PROCESSES="2") as launcher:
        (fork_client,) = psutil.Process(launcher.process.pid).children()
        (template,) = fork_client.children()
        for number in range(6):
            until(lambda: len(template.children()) == 3, "the lead and two that wait")
            time.sleep(0.2)  # they are set up
            waiting = sorted(template.children(), key=lambda child: child.create_time())[1:]
            for child in waiting:
                child.kill()
            if number % 2:
                assert launcher.http.post("/bot", json={}).status_code == 200
            else:
                socket = opened(url(launcher))
                socket.send("hello")
                assert socket.recv(timeout=20) == "hello"
                socket.close()


def test_calls_survive_the_death_of_the_template() -> None:
    with pool() as launcher:
        (fork_client,) = psutil.Process(launcher.process.pid).children()
        (template,) = fork_client.children()
        template.kill()
        launcher.wait_for_log("importing the bot again")

        def served() -> bool:
            return launcher.http.post("/bot", json={}).status_code == 200

        until(served, "a process of the new one")
        until(lambda: len(fork_client.children()) == 1, "one template")
        assert len(launcher.lines("importing the bot again")) == 1


def test_as_many_calls_as_there_are_slots_run_at_once() -> None:
    with pool(MAX_SESSIONS="3", PIPECAT_IDLE_PROCESSES="1") as launcher:
        sockets = [opened(url(launcher)) for _ in range(3)]
        for socket in sockets:
            socket.send("hello")
            assert socket.recv(timeout=20) == "hello"
        assert launcher.http.post("/bot", json={}).status_code == 429
        sockets[0].close()
        until(lambda: launcher.http.post("/bot", json={}).status_code == 200, "a place")
