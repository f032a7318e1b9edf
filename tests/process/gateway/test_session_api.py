"""Requests to a session's bot, the list of sessions, and their end."""

from __future__ import annotations

import asyncio
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.process.gateway.conftest import sessions
from tests.support.browser_peer import Browser
from tests.support.launchers import Launcher, until

PREFIXES = ["", "/v1/public/my-agent"]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_every_method_reaches_the_bot(gateway: Launcher, running: str, prefix: str, method: str) -> None:
    url = f"{prefix}/sessions/{running}/any/a%2Fb%20c?x=1&y=%26"
    answer = gateway.http.request(method, url, content="hello" if method not in ("GET", "HEAD") else None)
    assert answer.status_code == 200
    if method != "HEAD":
        seen = answer.json()
        assert seen["method"] == method
        assert seen["raw_path"] == "/any/a%2Fb%20c"
        assert seen["query"] == "x=1&y=%26"
        assert seen["body"] == ("hello" if method != "GET" else "")


def test_the_bot_sees_the_sessions_id_and_neither_key_nor_host(gateway: Launcher, running: str) -> None:
    sent = {"authorization": "Bearer s3cr3t", "x-daily-session-id": "another", "x-mine": "kept"}
    seen = gateway.http.post(f"/sessions/{running}/any/", headers=sent, content="x").json()
    headers = dict(seen["headers"])
    assert headers["x-daily-session-id"] == running
    assert headers["x-mine"] == "kept"
    assert not headers.keys() & {"authorization", "host", "content-length"}
    assert sum(name == "x-daily-session-id" for name, _ in seen["headers"]) == 1


def test_log_lines_of_the_bots_endpoint_carry_the_session(gateway: Launcher, running: str) -> None:
    gateway.http.get(f"/sessions/{running}/any/")
    gateway.wait_for_log(f"| {running} - any was asked")


def test_the_bots_own_status_is_reached_though_the_gateway_has_one(gateway: Launcher, running: str) -> None:
    assert gateway.http.get(f"/sessions/{running}/status").json() == {"mine": True}
    assert "/status is reserved for the launcher (GET): your status() is not served there" in gateway.log()
    assert gateway.http.get("/status").json()["status"] == "ready"


def test_a_body_streams_to_the_bot_and_its_answer_back_at_the_same_time(gateway: Launcher, running: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as sock:
        head = f"POST /sessions/{running}/back HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        sock.sendall(head.encode() + b"5\r\nfirst\r\n")
        received = until_received(sock, b"first")  # before the request has ended
        sock.sendall(b"6\r\nsecond\r\n0\r\n\r\n")
        until_received(sock, b"second")
    assert received.startswith(b"HTTP/1.1 200")


def until_received(sock: socket.socket, part: bytes) -> bytes:
    received = b""
    while part not in received:
        more = sock.recv(4096)
        assert more, received
        received += more
    return received


def test_an_endpoint_that_fails_is_a_500_of_its_own_and_the_session_goes_on(gateway: Launcher, running: str) -> None:
    answer = httpx.get(f"{gateway.http.base_url}/sessions/{running}/broken", trust_env=False)
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert [session["sessionId"] for session in sessions(gateway)] == [running]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_an_unknown_session_is_404(gateway: Launcher, prefix: str) -> None:
    for path in ("status", "api/offer", "files", ""):
        answer = gateway.http.post(f"{prefix}/sessions/{uuid.uuid4()}/{path}")
        assert (answer.status_code, answer.json()["reason"]) == (404, "unknown_session"), path


def test_an_ended_session_is_404(gateway: Launcher, running: str) -> None:
    assert gateway.http.delete(f"/sessions/{running}").status_code == 200
    until(lambda: not sessions(gateway), "the session's end")
    assert gateway.http.get(f"/sessions/{running}/status").status_code == 404
    assert gateway.http.delete(f"/sessions/{running}").status_code == 404


def test_a_session_is_shown_until_after_its_end(gateway: Launcher, running: str) -> None:
    session = gateway.http.get(f"/sessions/{running}").json()
    assert (session["sessionId"], session["state"], session["transport"]) == (running, "running", "plain")
    gateway.http.delete(f"/sessions/{running}")
    until(lambda: not sessions(gateway), "the session's end")
    ended = {"sessionId": running, "state": "ended", "outcome": "cancelled", "message": "The session was cancelled."}
    told = gateway.http.get(f"/sessions/{running}").json()
    assert (told.pop("report")["session_id"], told) == (running, ended)
    assert gateway.http.get(f"/sessions/{uuid.uuid4()}").status_code == 404


def test_a_session_without_a_start_is_shown_too(gateway: Launcher) -> None:
    headers = {"x-daily-session-id": "came-by-itself"}
    with connect(gateway.websocket_url("/ws-client"), additional_headers=headers) as client:
        client.send("hello")
        assert client.recv(timeout=10) == "hello"
    until(lambda: not sessions(gateway), "the session's end")
    told = gateway.http.get("/sessions/came-by-itself").json()
    assert (told["state"], told["outcome"]) == ("ended", "completed")


def test_a_session_without_an_offer_fails_for_that_reason() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", WEBRTC_OFFER_TIMEOUT="0.2") as launcher:
        session = launcher.http.post("/start").json()["sessionId"]
        until(lambda: not sessions(launcher), "its end")
        told = launcher.http.get(f"/sessions/{session}").json()
    assert (told["outcome"], told["message"]) == ("failed", "No offer for this session came within 0.2 s.")


def test_of_a_failed_session_the_exception_is_named_and_not_quoted(gateway: Launcher) -> None:
    start = gateway.http.post("/v1/public/my-agent/start", json={"body": {"do": "raise"}})
    session = start.json()["sessionId"]

    def ended() -> dict[str, Any] | None:
        told: dict[str, Any] = gateway.http.get(f"/sessions/{session}").json()
        assert "state" in told, told  # at no time is it unknown
        return told if told["state"] == "ended" else None

    told = until(ended, "the session's end")
    assert (told["outcome"], told["message"]) == ("failed", "The bot raised ValueError; its log has the traceback.")


def test_a_request_waits_for_its_bot_to_run_and_is_answered_by_it(gateway: Launcher) -> None:
    waiting = gateway.http.post("/start", json={"transport": "webrtc"}).json()["sessionId"]

    async def scene() -> None:
        async with Browser(f"http://127.0.0.1:{gateway.port}", session=waiting) as browser:
            asked = asyncio.ensure_future(browser.http.get(f"/sessions/{waiting}/status"))
            await asyncio.sleep(0.3)
            assert not asked.done()
            assert (await browser.offer()).status_code == 200
            assert (await asked).json() == {"mine": True}

    asyncio.run(scene())


def test_a_request_for_a_session_whose_bot_does_not_run_yet_waits_until_the_session_is_over(gateway: Launcher) -> None:
    waiting = gateway.http.post("/start", json={"transport": "webrtc"}).json()["sessionId"]
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(gateway.http.get, f"/sessions/{waiting}/status")
        time.sleep(0.3)
        assert not asked.done()
        gateway.http.delete(f"/sessions/{waiting}")
        assert asked.result().status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "/sessions/{}",
        "/v1/agents/my-agent/sessions/{}",
        "/v1/organizations/my-org/services/my-agent/sessions/{}",
    ],
)
def test_a_session_can_be_stopped(gateway: Launcher, running: str, path: str) -> None:
    answer = gateway.http.delete(path.format(running))
    assert (answer.status_code, answer.json()) == (200, {"status": "stopping", "sessionId": running})
    until(lambda: not sessions(gateway), "the session's end")
    gateway.wait_for_log(f"{running} - Session ended: cancelled")


def test_a_start_succeeds_although_its_bot_fails_at_once(gateway: Launcher) -> None:
    answer = gateway.http.post("/v1/public/my-agent/start", json={"body": {"do": "raise"}})
    assert answer.status_code == 200
    gateway.wait_for_log(f"{answer.json()['sessionId']} - Session ended: failed")


def test_sessions_started_without_the_gateway_are_listed_too(gateway: Launcher) -> None:
    with ThreadPoolExecutor() as pool:
        ended = pool.submit(gateway.http.post, "/bot", json={}, headers={"x-daily-session-id": "from-the-platform"})
        until(lambda: sessions(gateway), "a session")
        assert gateway.http.get("/sessions/from-the-platform/status").json() == {"mine": True}
        gateway.http.delete("/sessions/from-the-platform")
        assert ended.result().headers["x-pipecat-session-outcome"] == "cancelled"


def test_while_draining_no_session_is_started_and_those_that_run_are_served() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", DRAIN_NOTICE="0") as launcher:
        running = launcher.http.post("/v1/public/my-agent/start").json()["sessionId"]
        launcher.signal()
        until(lambda: launcher.http.get("/status").json()["status"] == "draining", "draining")
        refused = launcher.http.post("/start")
        assert (refused.status_code, refused.json()["reason"]) == (503, "draining")
        assert launcher.http.get(f"/sessions/{running}/status").json() == {"mine": True}
        launcher.http.delete(f"/sessions/{running}")
        assert launcher.wait() == 0
