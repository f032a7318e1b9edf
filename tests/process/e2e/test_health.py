"""/livez and /readyz in every state, and while the event loop is blocked."""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from tests.support.callers import encode, post, probe
from tests.support.launchers import Launcher, in_one_process, until


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Whoever opens it is blocked until it is written to."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def test_both_answer_when_ready(obedient: Launcher) -> None:
    assert probe(obedient, "/livez").json() == {"status": "ok"}
    assert probe(obedient, "/readyz").json() == {"ready": True}
    assert obedient.http.head("/livez").status_code == 200


@pytest.mark.parametrize("bot", ["slow_import", "slow_setup"])
def test_while_starting_it_is_live_and_not_ready_and_refuses_sessions(bot: str) -> None:
    with Launcher(bot, wait=False) as launcher:
        launcher.wait_for_log("importing" if bot == "slow_import" else "setting up")

        def live() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return probe(launcher, "/livez").status_code == 200
            return False

        until(live, "live")
        ready = probe(launcher, "/readyz")
        assert (ready.status_code, ready.json()["state"]) == (503, "starting")
        refused = post(launcher, {"a": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["x-pipecat-launcher"].startswith("pipecat-base/")


@pytest.mark.parametrize(
    ("says", "status", "body"),
    [
        ("true", 200, {"ready": True}),
        ("false", 503, {"ready": False}),
        ("dict", 200, {"ready": True, "queue": 3}),
    ],
)
def test_the_bots_own_readyz_decides(says: str, status: int, body: object) -> None:
    with Launcher("readyz", wait=False, READYZ=says) as launcher:
        launcher.wait_for_log("Ready: ")
        response = probe(launcher, "/readyz")
        assert (response.status_code, response.json()) == (status, body)


@pytest.mark.parametrize(
    ("says", "reason"),
    [
        ("raise", "readyz() raised RuntimeError"),
        ("keyless", "readyz() must return True, False or a dict"),
        ("none", "readyz() must return True, False or a dict"),
        ("block", "readyz() has not answered within 0.3 s"),
        ("async-hang", "readyz() has not answered within 0.3 s"),
    ],
)
def test_a_readyz_that_fails_is_503_and_one_log_line(says: str, reason: str) -> None:
    with Launcher("readyz", wait=False, READYZ=says, READYZ_TIMEOUT="0.3", DRAIN_NOTICE="0") as launcher:
        launcher.wait_for_log("Ready: ")
        for _ in range(3):
            response = probe(launcher, "/readyz")
            assert response.status_code == 503
            assert response.json()["reason"].startswith(reason)
            assert probe(launcher, "/livez").status_code == 200
        assert launcher.log().count(" - readyz() ") == 1
        assert launcher.stop() == 0


@pytest.mark.parametrize("kind", ["async def", "def"])
def test_a_readyz_that_hung_once_is_called_again(tmp_path: Path, kind: str) -> None:
    hang = "await asyncio.sleep(60)" if kind == "async def" else "time.sleep(60)"
    (tmp_path / "bot.py").write_text(
        f"import asyncio, time\n\ncalls = []\n\n\n{kind} readyz():\n    calls.append(1)\n"
        f"    if len(calls) == 1:\n        {hang}\n    return True\n\n\nasync def bot(args): ...\n"
    )
    with Launcher(tmp_path, wait=False, READYZ_TIMEOUT="0.3", DRAIN_NOTICE="0") as launcher:
        launcher.wait_for_log("Ready: ")
        assert [probe(launcher, "/readyz").status_code for _ in range(3)] == [503, 200, 200]


def test_probes_of_a_readyz_that_hangs_do_not_pile_up() -> None:
    with Launcher("readyz", wait=False, READYZ="block", READYZ_TIMEOUT="0.05", DRAIN_NOTICE="0") as launcher:
        launcher.wait_for_log("Ready: ")
        for _ in range(12):
            assert probe(launcher, "/readyz").status_code == 503
        assert 1 <= launcher.log().count("readyz blocks") <= 3


def test_being_full_can_count_as_ready() -> None:
    with Launcher("obedient", MAX_SESSIONS="1", READY_WHEN_FULL="true") as launcher, ThreadPoolExecutor() as pool:
        running = pool.submit(post, launcher, {"do": "sleep", "seconds": 0.5})
        launcher.wait_for_log("Session started")
        assert probe(launcher, "/readyz").status_code == 200
        assert running.result().status_code == 200


@in_one_process
def test_a_bot_that_blocks_the_loop_is_live_not_ready_and_named(fifo: Path) -> None:
    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        blocking = pool.submit(post, launcher, {"do": "block-until", "fifo": str(fifo)})
        launcher.wait_for_log("The event loop is blocked by bot.py:")
        assert "open(body[" in launcher.log()
        for _ in range(3):
            live = probe(launcher, "/livez")
            assert (live.status_code, live.json()["status"]) == (200, "blocked")
            assert probe(launcher, "/readyz").status_code == 503
        # A caller that comes meanwhile is served when the loop is back; nothing is lost.
        waiting = pool.submit(post, launcher, {"do": "return"})
        fifo.write_text("")
        assert waiting.result().status_code == 200
        assert blocking.result().status_code == 200
        launcher.wait_for_log("The event loop runs again after")
        assert probe(launcher, "/livez").json() == {"status": "ok"}


@in_one_process
def test_a_probe_waits_out_a_hiccup_of_the_loop() -> None:
    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        blocking = pool.submit(post, launcher, {"do": "block", "seconds": 0.7})
        launcher.wait_for_log("Session started")
        assert probe(launcher, "/readyz").json() == {"ready": True}
        assert blocking.result().status_code == 200
        assert "The event loop is blocked" not in launcher.log()


@in_one_process
def test_a_socket_that_is_dialled_while_the_loop_is_blocked_is_handed_over() -> None:
    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        pool.submit(post, launcher, {"do": "block", "seconds": 2})
        launcher.wait_for_log("The event loop is blocked")
        with connect(f"{launcher.websocket_url()}?body={encode({'do': 'echo'})}", proxy=None) as websocket:
            websocket.send("hello")
            assert websocket.recv(timeout=10) == "hello"


@in_one_process
def test_a_loop_that_stays_blocked_is_not_live(fifo: Path) -> None:
    with Launcher("obedient", EVENT_LOOP_STALL_LIMIT="1.5") as launcher, ThreadPoolExecutor() as pool:
        pool.submit(post, launcher, {"do": "block-until", "fifo": str(fifo)})
        launcher.wait_for_log("The event loop is blocked")
        until(lambda: probe(launcher, "/livez").status_code == 503, "not live")
        fifo.write_text("")


@in_one_process
def test_garbage_on_a_connection_taken_while_blocked_is_harmless(fifo: Path) -> None:
    import socket

    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        pool.submit(post, launcher, {"do": "block-until", "fifo": str(fifo)})
        launcher.wait_for_log("The event loop is blocked")
        for garbage in (b"", b"\x00\xff", b"GET", b"GET / HTTP/1.1\r\n", b"x" * 5000, b"GET /livez HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", launcher.port)) as sock:
                sock.sendall(garbage)
        assert probe(launcher, "/livez").status_code == 200
        fifo.write_text("")
        launcher.wait_for_log("The event loop runs again after")
        assert launcher.is_ready()


def test_a_request_that_does_not_go_on_costs_nothing_while_the_bot_is_imported() -> None:
    import socket

    with Launcher("slow_import", wait=False) as launcher:
        launcher.wait_for_log("importing")
        process = psutil.Process(launcher.process.pid)
        with socket.create_connection(("127.0.0.1", launcher.port)) as sock:
            sock.sendall(b"GET /liv")
            before = sum(process.cpu_times()[:2])
            time.sleep(0.8)
            assert sum(process.cpu_times()[:2]) - before < 0.3
            sock.settimeout(5)
            assert sock.recv(100) == b""  # given up
        assert probe(launcher, "/livez").status_code == 200


@in_one_process
def test_probes_are_answered_with_a_thousand_descriptors_open(tmp_path: Path, fifo: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import os\n\nfiles = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]\n\n\n"
        "async def bot(args):\n    open('fifo').close()\n"
    )
    with Launcher(tmp_path) as launcher, ThreadPoolExecutor() as pool:
        for count in (1, 2):
            blocking = pool.submit(post, launcher)
            launcher.wait_for_log("The event loop is blocked", times=count)
            live = probe(launcher, "/livez")
            assert (live.status_code, live.json()["status"]) == (200, "blocked")
            fifo.write_text("")
            assert blocking.result().status_code == 200


def test_a_probe_that_comes_as_the_block_begins_is_answered_while_it_lasts(fifo: Path) -> None:
    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        blocking = pool.submit(post, launcher, {"do": "block-until", "fifo": str(fifo)})
        launcher.wait_for_log("Session started")
        # On a connection of its own: the launcher's client may still have one that the loop holds.
        url = f"http://127.0.0.1:{launcher.port}/livez"
        assert httpx.get(url, timeout=10, trust_env=False).status_code == 200
        assert not blocking.done()
        fifo.write_text("")
        assert blocking.result().status_code == 200
