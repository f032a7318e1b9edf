"""Hostile peers do not slow down the other callers noticeably."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.attackers import (
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Flood,
    answer_of,
    close_code_of,
    dial,
    frame,
    growth,
    status_of,
    upgrade,
)
from tests.support.bystanders import Bystanders, echo_during
from tests.support.launchers import PYTHON, Launcher, in_one_process, until

MAX_ECHO_SECONDS = 0.05
"""The 99th percentile of a bystander's echo under attack."""


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher("hostile") as running:
        yield running


@pytest.fixture
def strict() -> Iterator[Launcher]:
    """Short limits."""
    limits: dict[str, Any] = {
        "PIPECAT_HEAD_TIMEOUT": "0.5",
        "PIPECAT_BODY_TIMEOUT": "1",
        "PIPECAT_MAX_UNFINISHED_BYTES": "1000000",
        "PIPECAT_MAX_CONNECTIONS": "20",
    }
    with Launcher("hostile", **limits) as running:
        yield running


MAX_GROWTH_MEGABYTES = 25
"""An idle process that starts meanwhile takes 11."""


def url(launcher: Launcher) -> str:
    return launcher.websocket_url("/ws-client")


# Heads.


def test_endless_headers_are_refused_and_not_kept(launcher: Launcher) -> None:
    with growth(launcher) as megabytes:
        sock = dial(launcher)
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
        with Flood(sock, b"x-more: " + b"y" * 50 + b"\r\n") as flood:
            until(lambda: flood.is_refused or flood.sent > 100 * 2**20, "the end of it")
    assert flood.sent < 20 * 2**20
    assert megabytes() < MAX_GROWTH_MEGABYTES


def test_a_long_head_gets_431(launcher: Launcher) -> None:
    sock = dial(launcher)
    sock.sendall(b"GET /?" + b"x" * 1_200_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
    answer = answer_of(sock)
    assert status_of(answer) == 431
    assert b'"code": "head_too_large"' in answer


@pytest.mark.parametrize("path", ["/livez", "/ws-client"])
def test_many_headers_get_431(launcher: Launcher, path: str) -> None:
    sock = dial(launcher)
    upgrading = b"connection: upgrade\r\nupgrade: websocket\r\n" if path == "/ws-client" else b""
    head = b"GET %s HTTP/1.1\r\nhost: localhost\r\n%s" % (path.encode(), upgrading)
    sock.sendall(head + b"".join(b"x-%d: y\r\n" % n for n in range(140)) + b"\r\n")
    assert status_of(answer_of(sock)) == 431


def test_many_headers_are_refused_before_the_head_is_complete(launcher: Launcher) -> None:
    sock = dial(launcher)
    sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n" + b"".join(b"x-%d: y\r\n" % n for n in range(140)))
    assert status_of(answer_of(sock, 5)) == 431


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(launcher: Launcher) -> None:
    sock = dial(launcher)
    lengths = b"content-length: 5\r\ntransfer-encoding: chunked\r\n"
    sock.sendall(b"POST /swallow HTTP/1.1\r\nhost: localhost\r\n%s\r\n0\r\n\r\nGET /livez HTTP/1.1\r\n\r\n" % lengths)
    answer = answer_of(sock)
    assert status_of(answer) == 400
    assert answer.count(b"HTTP/1.1 ") == 1


def test_half_a_head_gets_408(strict: Launcher) -> None:
    sock = dial(strict)
    sock.sendall(b"GET /livez HTTP/1.1\r\nhost: loc")
    assert status_of(answer_of(sock, 5)) == 408


def test_half_a_second_head_gets_408_too(strict: Launcher) -> None:
    sock = dial(strict)
    sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\nGET /livez HTTP/1.1\r\n")
    answer = answer_of(sock, 5)
    assert status_of(answer) == 200
    assert b"HTTP/1.1 408 " in answer


def test_a_connection_without_a_request_is_closed(strict: Launcher) -> None:
    assert answer_of(dial(strict), 5) == b""


# Bodies.


def test_half_a_body_gets_408(strict: Launcher) -> None:
    sock = dial(strict)
    sock.sendall(b"POST /bot HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
    assert status_of(answer_of(sock, 5)) == 408


def test_half_bodies_hold_no_more_than_they_may(strict: Launcher) -> None:
    most, kept = 1_000_000, []
    for _ in range(15):
        sock = dial(strict)
        sock.sendall(b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200001\r\n\r\n")
        sock.sendall(b"x" * 200_000)
        kept.append(sock)
    statuses = [status_of(answer_of(sock, 5)) for sock in kept]
    assert statuses.count(408) <= most // 200_000  # those that were taken, and came too slowly
    assert set(statuses) == {408, 503}
    assert strict.http.post("/swallow", content=b"x" * 200_000).json() == {"size": 200_000}


def test_a_small_body_is_accepted_when_the_shared_budget_is_used_up(strict: Launcher) -> None:
    for _ in range(6):
        sock = dial(strict)
        sock.sendall(b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n" + b"x" * 190_000)
    assert strict.http.post("/swallow", content=b"x" * 50_000).json() == {"size": 50_000}


@in_one_process
def test_half_messages_of_websockets_hold_no_more_either(strict: Launcher) -> None:
    codes = []
    for _ in range(8):
        sock = upgrade(strict)
        sock.sendall(b"\x82\xff" + (10_000_000).to_bytes(8, "big") + bytes(4) + b"x" * 300_000)
        codes.append(sock)
    until(lambda: "closed with 1013" in strict.log(), "a refusal")
    assert close_code_of(codes[-1], 5) == 1013


@in_one_process
def test_whole_messages_that_a_bot_does_not_receive_hold_no_more_either() -> None:
    size = 5_000_000
    message = b"\x82\xff" + size.to_bytes(8, "big") + bytes(4) + b"x" * size
    with Launcher("hostile", PIPECAT_MAX_UNFINISHED_BYTES="8000000") as launcher, growth(launcher) as megabytes:
        first, second = upgrade(launcher), upgrade(launcher)
        for sock in (first, second):
            sock.sendall(frame(TEXT, b"sleep"))
        first.sendall(message)
        until(lambda: megabytes() > 4, "the first message")
        with contextlib.suppress(OSError):  # closed by now
            second.sendall(message)
        assert close_code_of(second, 5) == 1013


@in_one_process
def test_whole_messages_that_a_bot_receives_count_no_longer() -> None:
    size = 5_000_000
    with Launcher("hostile", PIPECAT_MAX_UNFINISHED_BYTES="8000000") as launcher, contextlib.ExitStack() as calls:
        for _ in range(3):
            call = calls.enter_context(connect(url(launcher), proxy=None, max_size=None))
            call.send("x" * size)
            assert len(call.recv(20)) == size


@pytest.mark.parametrize("line", [b"x-odd: a\x01b", b"content-length: 5", b"transfer-encoding: chunked"])
def test_an_invalid_handshake_is_answered(strict: Launcher, line: bytes) -> None:
    sock = dial(strict)
    head = b"GET /ws-client HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    key = b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    sock.sendall(head + key + line + b"\r\n\r\n")
    assert status_of(answer_of(sock, 5)) == 400


CHUNKED = b"POST /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
LONG = b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 200000\r\n\r\n"


@pytest.mark.parametrize(
    ("count", "beginning"),
    [(120, CHUNKED + b"1\r\nx\r\n" * 20_000), (15, LONG + b"x" * 190_000)],
    ids=["not wanted", "wanted"],
)
def test_a_disconnect_in_the_middle_of_a_body_frees_its_bytes(count: int, beginning: bytes) -> None:
    # No limit of time frees what is held before the test gives up.
    slow: dict[str, Any] = {"PIPECAT_BODY_TIMEOUT": "120", "PIPECAT_MAX_UNFINISHED_BYTES": "1000000"}
    with Launcher("hostile", PIPECAT_MAX_CONNECTIONS="20", **slow) as launcher:
        for _ in range(count):
            sock = dial(launcher)
            with contextlib.suppress(OSError):
                sock.sendall(beginning)
            sock.close()

        def taken() -> bool:
            with contextlib.suppress(httpx.TransportError):  # the budget is full until it has seen the disconnects
                return bool(launcher.http.post("/swallow", content=b"x" * 200_000).json() == {"size": 200_000})
            return False

        until(taken, "a body that is taken")


def test_more_trailers_than_the_limit_of_headers_are_refused(launcher: Launcher) -> None:
    sock = dial(launcher)
    trailers = b"".join(b"x-%d: y\r\n" % n for n in range(140))
    sock.sendall(
        b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + trailers + b"\r\n"
    )
    assert status_of(answer_of(sock)) == 431


def test_many_trailers_are_refused(launcher: Launcher) -> None:
    sock = dial(launcher)
    sock.sendall(b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    with contextlib.suppress(OSError):
        sock.sendall(b"a:b\r\n" * 100_000)
    assert status_of(answer_of(sock)) in (0, 431)  # 0: reset, before it could read the answer


# Peers that do not read.


def test_peers_that_do_not_read_are_disconnected(strict: Launcher) -> None:
    for _ in range(15):
        sock = dial(strict)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n" * 40)
    process = psutil.Process(strict.process.pid)
    until(lambda: len(process.net_connections("tcp")) > 15, "they have come")
    until(lambda: len(process.net_connections("tcp")) <= 3, "they are gone", 5)


def test_a_call_whose_caller_does_not_read_ends() -> None:
    limits: dict[str, Any] = {"PIPECAT_BODY_TIMEOUT": "1", "MAX_SESSIONS": "1"}
    with Launcher("hostile", **limits) as launcher:
        sock = upgrade(launcher)
        sock.settimeout(2)
        with contextlib.suppress(OSError):
            for _ in range(3000):
                sock.sendall(b"\x81\xfe\xff\xff" + bytes(4) + b"x" * 65535)
        until(lambda: launcher.http.get("/readyz").status_code == 200, "its place is free", 10)


def test_compression_is_not_negotiated(launcher: Launcher) -> None:
    with connect(url(launcher), proxy=None) as websocket:
        assert websocket.response is not None
        assert "sec-websocket-extensions" not in websocket.response.headers


def test_no_responses_are_made_for_a_peer_that_does_not_read(launcher: Launcher) -> None:
    sock = dial(launcher)
    with growth(launcher) as megabytes, Flood(sock, b"GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n" * 100) as flood:
        time.sleep(2)
        stuck = flood.sent
        time.sleep(0.5)
        assert flood.sent == stuck
    assert megabytes() < MAX_GROWTH_MEGABYTES


def test_no_pongs_are_made_for_a_peer_that_does_not_read(launcher: Launcher) -> None:
    with Launcher("hostile", PIPECAT_MAX_FRAMES_PER_SECOND="10000000") as unlimited:
        sock = upgrade(unlimited)
        with growth(unlimited) as megabytes, Flood(sock, frame(PING, b"p" * 100) * 1000):
            time.sleep(3)
        assert megabytes() < MAX_GROWTH_MEGABYTES


# Floods.


@pytest.mark.parametrize(
    "data",
    [
        frame(PING) * 5000,
        frame(PONG) * 5000,
        frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 5000,
        frame(TEXT) * 5000,
        frame(TEXT, b"x") * 5000,
    ],
    ids=["pings", "pongs", "empty fragments", "empty texts", "small messages"],
)
def test_a_flood_of_frames_is_closed_and_others_do_not_notice(launcher: Launcher, data: bytes) -> None:
    def attack() -> None:
        sock = upgrade(launcher)
        with Flood(sock, data, rate=2e6) as flood:
            assert close_code_of(sock) == 1008
            until(lambda: flood.is_refused, "the end of the connection")

    assert echo_during(launcher, attack, MAX_ECHO_SECONDS, Bystanders.p99) < MAX_ECHO_SECONDS


def test_a_burst_after_a_pause_is_no_flood(launcher: Launcher) -> None:
    sock = upgrade(launcher)
    sock.sendall(frame(TEXT, b"a") * 4000 + frame(TEXT, b"the last"))
    data = b""
    while not data.endswith(b"the last"):
        data += sock.recv(65536)


CHUNKED = b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "data"),
    [
        (CHUNKED, b"1\r\nx\r\n" * 20_000),
        (b"", b"GET /nothing HTTP/1.1\r\nhost: localhost\r\n\r\n" * 2000),
        (b"", b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx" * 2000),
    ],
    ids=["chunks of a byte", "pipelined gets", "pipelined posts"],
)
def test_a_flood_of_requests_does_not_delay_others(launcher: Launcher, head: bytes, data: bytes) -> None:
    def attack() -> None:
        sock = dial(launcher)
        sock.sendall(head)
        with Flood(sock, data, rate=20e6):
            deadline = time.monotonic() + 2
            while time.monotonic() < deadline:
                try:
                    if not sock.recv(65536):
                        break
                except TimeoutError:
                    pass

    assert echo_during(launcher, attack, MAX_ECHO_SECONDS, Bystanders.p99) < MAX_ECHO_SECONDS


# Connections.


def test_excess_connections_evict_idle_ones(strict: Launcher) -> None:
    with Bystanders(strict) as others:
        idle = [dial(strict) for _ in range(60)]
        for _ in range(5):
            assert httpx.get(f"http://127.0.0.1:{strict.port}/livez", trust_env=False).status_code == 200
        assert [answer_of(sock, 5) for sock in idle[:10]] == [b""] * 10
    assert others.lost == 0


def test_a_new_connection_gets_a_moment_for_its_request(strict: Launcher) -> None:
    time.sleep(1.1)  # the connection that has asked whether it is ready may go
    some = [dial(strict) for _ in range(19)]
    for _ in range(3):
        dial(strict)
    for sock in some:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
    assert [status_of(answer_of(sock, 5)) for sock in some] == [200] * 19


@in_one_process
def test_beyond_the_hard_limit_connections_wait_in_the_backlog(strict: Launcher) -> None:
    time.sleep(1.1)
    calls = [upgrade(strict) for _ in range(20)]
    for _ in range(30):
        dial(strict)
    time.sleep(0.2)
    assert len(psutil.Process(strict.process.pid).net_connections("tcp")) <= 30
    for call in calls:
        call.sendall(frame(TEXT, b"still here"))
        assert call.recv(100).endswith(b"still here")


def test_busy_connections_are_not_closed_for_others(strict: Launcher) -> None:
    time.sleep(1.1)  # the connection that has asked whether it is ready is not a new one any more
    calls = [upgrade(strict) for _ in range(20)]
    sock = dial(strict)
    sock.sendall(b"POST /swallow HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1\r\n\r\nx")
    answer = answer_of(sock, 5)
    assert status_of(answer) == 503
    assert b'"code": "too_busy"' in answer
    assert httpx.get(f"http://127.0.0.1:{strict.port}/livez", trust_env=False).status_code == 200
    for call in calls:
        call.sendall(frame(TEXT, b"still here"))
        assert call.recv(100).endswith(b"still here")


async def close_of_one_who_looks_late(address: str) -> int | None:
    """A caller whose event loop is busy when the call ends, and which then sends before it reads."""
    async with connect_async(address, proxy=None) as caller:
        await caller.send("end")
        time.sleep(0.5)
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(5):
                caller.transport.write(frame(TEXT, b"more"))
                time.sleep(0.02)
            await caller.recv()
    return None if closed.value.rcvd is None else closed.value.rcvd.code


def test_a_peer_that_keeps_sending_after_the_end_still_receives_the_close_code(launcher: Launcher) -> None:
    for _ in range(5):
        assert asyncio.run(close_of_one_who_looks_late(url(launcher))) == 1000


def test_few_descriptors_cost_neither_probes_nor_calls(strict: Launcher) -> None:
    del strict
    limited = ("sh", "-c", 'ulimit -n 64; exec "$@"', "-")
    with Launcher("hostile", prefix=limited, PIPECAT_MAX_CONNECTIONS="1000") as launcher:
        with Bystanders(launcher) as others:
            idle = [dial(launcher) for _ in range(100)]
            time.sleep(1)
            statuses = [
                httpx.get(f"http://127.0.0.1:{launcher.port}/livez", timeout=1, trust_env=False).status_code
                for _ in range(5)
            ]
            for sock in idle:
                sock.close()
        assert statuses == [200] * 5
        assert others.lost == 0
        assert len(launcher.lines("No connection can be accepted")) <= 2
        assert httpx.get(f"http://127.0.0.1:{launcher.port}/livez", trust_env=False).status_code == 200


def test_the_descriptor_limit_is_raised_to_the_systems() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = "from pipecat_base.server.limits import *; raise_descriptor_limit(); print(descriptor_limit())"
    limited = ["sh", "-c", 'ulimit -S -n 64; exec "$@"', "-", PYTHON, "-c", program]
    assert int(subprocess.check_output(limited)) == hard


@pytest.mark.parametrize("size", [0, 3_000, 900_000], ids=["short", "in pieces", "in many turns"])
def test_a_frame_may_arrive_with_the_handshake(launcher: Launcher, size: int) -> None:
    sock = dial(launcher)
    target = b"/ws-client?ignored=" + b"x" * size
    head = b"GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n" % target
    key = b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    sock.sendall(head + key + frame(TEXT, b"at once"))
    data = b""
    while not data.endswith(b"at once"):
        data += sock.recv(1000)
    assert data.startswith(b"HTTP/1.1 101 ")
    sock.sendall(frame(TEXT, b"later"))
    assert sock.recv(1000).endswith(b"later")
