"""SIGTERM with calls of every kind: none is cut before the deadline, none outlives it."""

from __future__ import annotations

import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.callers import close_code, dial, encode, post, probe
from tests.support.launchers import ISOLATION, Launcher, in_one_process, measured, until

LOOPS = ["asyncio", "uvloop"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_call_goes_on_while_everything_else_is_told_to_go_elsewhere(loop: str) -> None:
    with Launcher("obedient", PIPECAT_EVENT_LOOP=loop, DRAIN_NOTICE="0") as launcher, ThreadPoolExecutor() as pool:
        running = pool.submit(post, launcher, {"do": "sleep", "seconds": 2})
        with dial(launcher, {"do": "echo"}) as websocket:
            websocket.send("before")
            assert websocket.recv(timeout=5) == "before"
            launcher.signal()
            launcher.wait_for_log("Draining: sessions running: 2")
            for number in range(20):
                websocket.send(f"during {number}")
                assert websocket.recv(timeout=5) == f"during {number}"
                assert probe(launcher, "/livez").status_code == 200
                ready = probe(launcher, "/readyz")
                assert (ready.status_code, ready.json()["state"]) == (503, "draining")
                refused = post(launcher)
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "draining")
                assert refused.headers["retry-after"] == "1"
                assert refused.headers["x-pipecat-launcher"]
            with pytest.raises(InvalidStatus) as denied, dial(launcher, {}):
                pass
            assert denied.value.response.status_code == 503
            assert running.result().status_code == 200
        assert launcher.wait(timeout=10) == 0


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("timeout", ["0", "1", "1.5"])
def test_the_deadline_ends_what_is_left(loop: str, timeout: str) -> None:
    variables: dict[str, Any] = {"SHUTDOWN_TIMEOUT": timeout, "PIPECAT_EVENT_LOOP": loop, "DRAIN_NOTICE": "0"}
    with Launcher("obedient", **variables) as launcher, ThreadPoolExecutor() as pool:
        plain = pool.submit(post, launcher, {"do": "hang"})
        daily = pool.submit(
            launcher.http.post, "/bot", json={"do": "hang"}, headers={"x-daily-room-url": "https://d/r"}
        )
        with dial(launcher, {"do": "hang"}) as websocket, dial(launcher, {"do": "receive"}, "/ws-client") as client:
            while launcher.log().count("Session started") < 4:
                time.sleep(0.01)
            with measured() as seconds:
                launcher.signal()
                assert close_code(websocket) == 1001
                assert close_code(client) == 1001
                assert launcher.wait(timeout=10) == 0
                assert float(timeout) <= seconds() < float(timeout) + 1
        for future in (plain, daily):
            response = future.result()
            assert (response.status_code, response.headers["x-pipecat-session-outcome"]) == (200, "drained")


def test_finally_blocks_get_their_grace() -> None:
    with Launcher("obedient", SHUTDOWN_TIMEOUT="0.2", SESSION_CANCEL_GRACE="1.5") as launcher:
        with ThreadPoolExecutor() as pool:
            running = pool.submit(post, launcher, {"do": "slow-finally", "seconds": 1.0})
            launcher.wait_for_log("Session started")
            assert launcher.stop() == 0
            assert running.result().status_code == 200
        assert any("cleaned" in said for said in launcher.said())


def test_a_bot_that_will_not_end_is_left_behind() -> None:
    variables: dict[str, Any] = {"SHUTDOWN_TIMEOUT": "0.2", "SESSION_CANCEL_GRACE": "0.5", "DRAIN_NOTICE": "0"}
    with Launcher("obedient", **variables) as launcher, dial(launcher, {"do": "swallow", "seconds": 60}) as websocket:
        launcher.wait_for_log("Session started")
        with measured() as seconds:
            launcher.signal()
            assert close_code(websocket) == 1001
            assert launcher.wait(timeout=10) == 0
            assert seconds() < 4
        assert "ignored its cancellation" in launcher.log()


TELLS_WHAT_WATCHDOG_BLOCKS = """
import threading


async def bot(args):
    (thread,) = [one for one in threading.enumerate() if one.name == "watchdog"]
    for line in open(f"/proc/self/task/{thread.native_id}/status"):
        if line.startswith("SigBlk:"):
            print("blocked", line.split()[1])
"""


@in_one_process
def test_a_bot_that_blocks_the_loop_can_not_hold_up_the_deadline() -> None:
    variables: dict[str, Any] = {
        "SHUTDOWN_TIMEOUT": "0.5",
        "SESSION_CANCEL_GRACE": "0.2",
        "TEARDOWN_TIMEOUT": "0.1",
        "DRAIN_NOTICE": "0",
    }
    with Launcher("obedient", **variables) as launcher:
        _in_background(launcher, {"do": "block", "seconds": 60})
        launcher.wait_for_log("Session started")
        time.sleep(0.2)
        launcher.signal()
        assert launcher.wait(timeout=12) == 70
        assert "shutdown deadline passed; forced out" in launcher.log()


@in_one_process
def test_no_thread_of_the_launchers_takes_a_signal_that_the_main_one_waits_for(tmp_path: Path) -> None:
    """The kernel gives it to whichever looks first; while the main one is in a system call nobody would act on it."""
    (tmp_path / "bot.py").write_text(TELLS_WHAT_WATCHDOG_BLOCKS)
    with Launcher(tmp_path) as launcher:
        post(launcher, {})
        (line,) = launcher.lines("blocked ")
        blocked = int(line.split()[1], 16)
        assert all(blocked & 1 << number - 1 for number in (signal.SIGTERM, signal.SIGINT))


@pytest.mark.parametrize("body", [{"do": "hang"}, {"do": "swallow", "seconds": 60}, {"do": "block", "seconds": 60}])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(body: dict[str, Any], number: int) -> None:
    with Launcher("obedient") as launcher:
        _in_background(launcher, body)
        launcher.wait_for_log("Session started")
        time.sleep(0.2)
        launcher.signal(number)
        if body["do"] != "block":
            launcher.wait_for_log("Draining: sessions running: 1")
        else:
            time.sleep(0.2)
        with measured() as seconds:
            launcher.signal(number)
            assert launcher.wait(timeout=10) == 128 + number
            assert seconds() < 3


def test_a_third_signal_kills_it_without_another_word() -> None:
    with Launcher("obedient") as launcher:
        _in_background(launcher, {"do": "swallow", "seconds": 60})
        launcher.wait_for_log("Session started")
        launcher.signal()
        launcher.wait_for_log("Draining")
        launcher.signal()
        launcher.wait_for_log("Cancelling the remaining sessions")
        launcher.signal()
        assert launcher.wait(timeout=10) == 128 + signal.SIGTERM
        assert "forced out" not in launcher.log()
        assert "Stopped" not in launcher.log()


@in_one_process
def test_after_a_second_signal_no_hook_is_called() -> None:
    with Launcher("hooks", DRAIN_NOTICE="20") as launcher:
        launcher.signal()
        launcher.wait_for_log("Draining")
        launcher.signal()
        assert launcher.wait(timeout=10) == 128 + signal.SIGTERM
        assert "setup ran" in launcher.log()
        assert "teardown ran" not in launcher.log()


def test_a_second_signal_still_closes_sockets() -> None:
    with Launcher("obedient") as launcher, dial(launcher, {"do": "hang"}) as websocket:
        launcher.wait_for_log("Session started")
        launcher.signal()
        launcher.wait_for_log("Draining")
        launcher.signal()
        assert close_code(websocket) == 1001


def test_idle_it_keeps_answering_until_load_balancers_have_noticed() -> None:
    with Launcher("obedient", DRAIN_NOTICE="1") as launcher, measured() as seconds:
        launcher.signal()
        launcher.wait_for_log("Draining")
        assert probe(launcher, "/readyz").status_code == 503
        assert post(launcher).status_code == 503
        assert launcher.wait() == 0
        assert 1 <= seconds() < 3


@pytest.mark.parametrize("gateway", ["0", "1"], ids=["pod", "gateway"])
def test_calls_are_taken_during_the_notice_where_the_setting_says_so(gateway: str) -> None:
    variables: dict[str, Any] = {"DRAIN_NOTICE": "2", "DRAIN_TAKES_CALLS": "1", "PIPECAT_GATEWAY": gateway}
    with Launcher("obedient", **variables) as launcher, measured() as seconds:
        launcher.signal()
        launcher.wait_for_log("Draining: no sessions; new calls are taken for 2 s")
        assert probe(launcher, "/readyz").status_code == 503
        assert post(launcher, {}).status_code == 200
        with dial(launcher, {"do": "echo"}) as websocket:
            until(lambda: post(launcher, {}).status_code == 503, "the end of the notice")
            assert 2 <= seconds() < 6
            websocket.send("still there")
            assert websocket.recv(timeout=10) == "still there"
        assert launcher.wait() == 0


def test_a_call_taken_during_the_notice_ends_at_the_deadline_of_all_others() -> None:
    variables: dict[str, Any] = {"DRAIN_NOTICE": "1", "DRAIN_TAKES_CALLS": "1", "SHUTDOWN_TIMEOUT": "2"}
    with Launcher("obedient", **variables) as launcher, measured() as seconds:
        launcher.signal()
        launcher.wait_for_log("Draining")
        with dial(launcher, {"do": "receive"}) as websocket:
            assert close_code(websocket) == 1001
            assert 2 <= seconds() < 6
        assert launcher.wait() == 0


def test_no_call_is_taken_after_ctrl_c_or_a_second_signal() -> None:
    variables: dict[str, Any] = {"DRAIN_NOTICE": "20", "DRAIN_TAKES_CALLS": "1"}
    with Launcher("obedient", **variables) as launcher, dial(launcher, {"do": "receive"}):
        launcher.wait_for_log("Session started")
        launcher.signal(signal.SIGINT)
        launcher.wait_for_log("Draining: sessions running: 1")
        assert post(launcher, {}).status_code == 503
    with Launcher("obedient", **variables) as launcher, measured() as seconds:
        launcher.signal()
        launcher.wait_for_log("Draining")
        launcher.signal()
        assert launcher.wait() == 128 + signal.SIGTERM
        assert seconds() < 6


def test_the_notice_to_load_balancers_is_no_longer_than_the_deadline() -> None:
    with Launcher("obedient", SHUTDOWN_TIMEOUT="0.5", DRAIN_NOTICE="20") as launcher, measured() as seconds:
        assert launcher.stop() == 0
        assert 0.5 <= seconds() < 10


def test_idle_ctrl_c_ends_at_once() -> None:
    with Launcher("obedient", DRAIN_NOTICE="30") as launcher, measured() as seconds:
        launcher.signal(signal.SIGINT)
        assert launcher.wait() == 0
        assert seconds() < 3


def test_the_session_api_is_served_to_the_end() -> None:
    with Launcher("api", DRAIN_NOTICE="0") as launcher, ThreadPoolExecutor() as pool:
        running = pool.submit(post, launcher, {"seconds": 1.5})
        launcher.wait_for_log("Session started")
        launcher.signal()
        launcher.wait_for_log("Draining")
        assert launcher.http.get("/status").json() == {"colour": "blue"}
        slow = pool.submit(launcher.http.get, "/slow?seconds=2")
        assert running.result().status_code == 200
        assert slow.result().json() == {"slept": 2.0}
        assert launcher.wait(timeout=10) == 0


def test_a_client_that_never_leaves_does_not_hold_up_the_end() -> None:
    with Launcher("obedient", DRAIN_NOTICE="0") as launcher, ThreadPoolExecutor() as pool:
        idle = httpx.Client(base_url=f"http://127.0.0.1:{launcher.port}", trust_env=False)
        assert idle.get("/livez").status_code == 200  # and the connection stays open
        half = connect(f"{launcher.websocket_url()}?body={encode({'do': 'return'})}", proxy=None, close_timeout=0)
        running: Future[httpx.Response] = pool.submit(post, launcher, {"do": "sleep", "seconds": 0.5})
        launcher.wait_for_log("Session started: plain")
        with measured() as seconds:
            launcher.signal()
            assert running.result().status_code == 200
            assert launcher.wait(timeout=15) == 0
            assert seconds() < 6
        half.socket.close()
        idle.close()


def test_hooks_that_hang_at_the_end_are_bounded(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import threading\n\n\ndef teardown():\n    threading.Event().wait()\n\n\nasync def bot(args): ...\n"
    )
    with Launcher(tmp_path, DRAIN_NOTICE="0", TEARDOWN_TIMEOUT="0.3") as launcher, measured() as seconds:
        assert launcher.stop() == 0
        assert seconds() < 5
        assert "teardown() was not done within 0.3 s" in launcher.log()


STUBBORN = """
import asyncio, time


async def {name}():
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            {step}
        except BaseException:
            pass


async def bot(args): ...
"""


@pytest.mark.parametrize(
    ("step", "status"),
    # A process of its own is killed; the launcher that blocks itself can only be left.
    [("await asyncio.sleep(1)", 0), ("time.sleep(60)", 70 if ISOLATION == "none" else 0)],
)
def test_a_teardown_that_will_not_end_is_cut(tmp_path: Any, step: str, status: int) -> None:
    (tmp_path / "bot.py").write_text(STUBBORN.format(name="teardown", step=step))
    with Launcher(tmp_path, DRAIN_NOTICE="0", TEARDOWN_TIMEOUT="0.5") as launcher, measured() as seconds:
        assert launcher.stop() == status
        assert seconds() < 9


def test_a_setup_that_will_not_end_is_cut(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(STUBBORN.format(name="setup", step="await asyncio.sleep(1)"))
    with Launcher(tmp_path, wait=False, SETUP_TIMEOUT="0.5") as launcher:
        assert launcher.wait(timeout=10) == 22
        assert "setup_timed_out" in launcher.log()


def test_a_lifespan_that_will_not_begin_is_cut(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, contextlib\nfrom pipecatcloud_system import add_lifespan_to_app\n\n\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n    await asyncio.Event().wait()\n    yield\n\n\n"
        "add_lifespan_to_app(lifespan)\n\n\nasync def bot(args): ...\n"
    )
    with Launcher(tmp_path, wait=False, SETUP_TIMEOUT="0.5") as launcher, measured() as seconds:
        assert launcher.wait(timeout=15) == 22
        assert seconds() < 8


def test_each_step_of_the_end_has_its_time(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, contextlib\nfrom pipecatcloud_system import add_lifespan_to_app\n\n\n"
        "@contextlib.asynccontextmanager\nasync def lifespan(app):\n    yield\n    await asyncio.sleep(1)\n"
        "    print('lifespan left', flush=True)\n\n\nadd_lifespan_to_app(lifespan)\n\n\n"
        "async def teardown():\n    await asyncio.sleep(1)\n    print('torn down', flush=True)\n\n\n"
        "async def bot(args): ...\n"
    )
    with Launcher(tmp_path, SHUTDOWN_TIMEOUT="0", TEARDOWN_TIMEOUT="1.5", SESSION_CANCEL_GRACE="0") as launcher:
        assert launcher.stop() == 0
        assert "torn down\n" in launcher.log()
        assert "lifespan left\n" in launcher.log()


@in_one_process
def test_a_thread_that_does_not_end_is_not_waited_for(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, threading\n\n\nasync def bot(args):\n"
        "    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)\n"
    )
    with Launcher(tmp_path, DRAIN_NOTICE="0") as launcher:
        assert post(launcher).status_code == 200
        with measured() as seconds:
            assert launcher.stop() == 0
            assert seconds() < 8
        assert "forced out after 3 s" in launcher.log()


def test_a_bot_can_not_take_the_signals_over(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, signal\n\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n\n\n"
        "async def setup():\n    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\n\n"
        "async def bot(args):\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    await asyncio.sleep(0.6)\n"
        "    loop = asyncio.get_running_loop()\n"
        "    loop.add_signal_handler(signal.SIGTERM, lambda: None)\n"
        "    await asyncio.sleep(1)\n"
        "    loop.remove_signal_handler(signal.SIGTERM)\n"
    )
    with Launcher(tmp_path, DRAIN_NOTICE="0") as launcher, ThreadPoolExecutor() as pool:
        running = pool.submit(post, launcher)
        launcher.wait_for_log("Session started")
        time.sleep(0.5)  # two heartbeats
        launcher.signal()
        launcher.wait_for_log("Draining: sessions running: 1")
        assert running.result().status_code == 200
        assert launcher.wait(timeout=10) == 0


def test_a_child_that_the_bot_forks_can_be_terminated(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import multiprocessing, time, warnings\n\n\nasync def bot(args):\n"
        "    warnings.simplefilter('ignore')\n"
        "    child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))\n"
        "    child.start()\n    time.sleep(0.2)\n    child.terminate()\n    child.join(5)\n"
        "    assert child.exitcode == -15, child.exitcode\n"
    )
    with Launcher(tmp_path) as launcher:
        assert post(launcher).status_code == 200, launcher.log()


@pytest.mark.parametrize(
    ("end", "status"), [("return", 0), ("sys.exit()", 0), ("sys.exit(3)", 3), ("raise ValueError", 1)]
)
def test_a_child_that_the_bot_forks_is_no_second_launcher(tmp_path: Any, end: str, status: int) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio, os, sys\n\n\nasync def bot(args):\n    pid = os.fork()\n    if pid == 0:\n"
        f"        {end}\n    ended, status = await asyncio.to_thread(os.waitpid, pid, 0)\n"
        "    print('child ended with', os.waitstatus_to_exitcode(status), flush=True)\n"
    )
    with Launcher(tmp_path, DRAIN_NOTICE="0") as launcher:
        for _ in range(3):
            assert launcher.post({}).status_code == 200
        assert launcher.log().count(f"child ended with {status}") == 3
        assert launcher.stop() == 0


def test_a_bot_that_stops_the_loop_does_not_end_the_launcher(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio\n\n\nasync def bot(args):\n"
        "    asyncio.get_running_loop().stop()\n    await asyncio.sleep(0.1)\n"
    )
    for loop in LOOPS:
        with Launcher(tmp_path, PIPECAT_EVENT_LOOP=loop, DRAIN_NOTICE="0") as launcher:
            assert post(launcher).status_code == 200
            assert post(launcher).status_code == 200
            assert launcher.stop() == 0


def _in_background(launcher: Launcher, body: dict[str, Any]) -> None:
    """Start a session whose answer nobody waits for."""
    import json
    import socket

    payload = json.dumps(body).encode()
    sock = socket.create_connection(("127.0.0.1", launcher.port))
    sock.sendall(b"POST /bot HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(payload) + payload)
    launcher.sockets.append(sock)
