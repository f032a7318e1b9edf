"""POST /bot, against a real server."""

from __future__ import annotations

import asyncio
import re
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.callers import arguments, post
from tests.support.launchers import Launcher, in_one_process, measured, until


def test_a_session_that_returns_is_200_and_an_empty_object(obedient: Launcher) -> None:
    response = post(obedient, {"topic": "weather"}, x_daily_session_id="plain-1")
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers["x-pipecat-session-outcome"] == "completed"
    given = arguments(obedient, "plain-1")
    assert given["type"] in ("RunnerArguments", "PipecatSessionArguments")
    assert given["args"]["body"] == {"topic": "weather"}
    assert given["args"]["handle_sigint"] is given["args"]["handle_sigterm"] is False


def test_a_missing_session_id_is_minted(obedient: Launcher) -> None:
    response = post(obedient)
    minted = response.headers["x-daily-session-id"]
    assert uuid.UUID(minted).version == 4
    assert arguments(obedient, minted)["args"]["body"] == {}


def test_a_room_gives_daily_arguments(obedient: Launcher) -> None:
    room = {"x_daily_room_url": "https://example.daily.co/room", "x_daily_room_token": "the-room-token"}
    dialin = {"dialin_settings": {"call_id": "1", "call_domain": "2"}, "daily_api_key": "k", "daily_api_url": "u"}
    assert post(obedient, dialin, x_daily_session_id="daily-1", **room).status_code == 200
    given = arguments(obedient, "daily-1")
    assert given["type"] in ("DailyRunnerArguments", "DailySessionArguments")
    assert given["args"]["room_url"] == "https://example.daily.co/room"
    assert given["args"]["token"] == "the-room-token"
    assert given["args"]["body"] == dialin


def test_a_room_without_a_token_is_public(obedient: Launcher) -> None:
    post(obedient, x_daily_session_id="daily-2", x_daily_room_url="https://example.daily.co/room")
    assert arguments(obedient, "daily-2")["args"]["token"] is None


@pytest.mark.parametrize(
    "content", [b"{", b'{"a": 1', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}', b"1" * 5000, b"{} {}"]
)
def test_bytes_that_are_not_json_are_400(obedient: Launcher, content: bytes) -> None:
    response = obedient.http.post("/bot", content=content)
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["field"]) == ("malformed", "body")
    assert response.headers["x-pipecat-launcher"].startswith("pipecat-base/")


@pytest.mark.parametrize("value", ["abc", "0", "-1", "nan", "inf", "", "60 s", "1e999"])
def test_a_limit_of_the_platforms_that_is_none_is_ignored_with_one_warning(obedient: Launcher, value: str) -> None:
    session_id = f"limit-{value}"
    response = obedient.post({"a": 1}, x_daily_session_id=session_id, x_pcc_max_session_seconds=value)
    assert (response.status_code, response.json()) == (200, {})
    assert obedient.arguments(session_id)["body"] == {"a": 1}
    (line,) = obedient.lines(f"| {session_id} - Ignored x-pcc-max-session-seconds: ")
    assert "WARNING" in line


def test_a_limit_holds_for_its_own_session_alone(obedient: Launcher) -> None:
    assert obedient.post(x_pcc_max_session_seconds="0.2").status_code == 200
    response = obedient.post({"do": "sleep", "seconds": 0.5})
    assert response.headers["x-pipecat-session-outcome"] == "completed"


@pytest.mark.parametrize("value", ["x" * 257, "caf\xe9"])
def test_a_malformed_session_id_is_400(obedient: Launcher, value: str) -> None:
    response = obedient.http.post("/bot", headers={b"x-daily-session-id": value.encode("latin-1")})
    error = response.json()["error"]
    assert (response.status_code, error["field"]) == (400, "x-daily-session-id")
    assert error["session_id"] is None


def test_a_body_that_is_too_large_is_413() -> None:
    with Launcher("obedient", MAX_BODY_BYTES="1000") as launcher:
        response = post(launcher, {"x": "y" * 1000})
        assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
        assert post(launcher, {"x": "y" * 900}).status_code == 200


def test_a_bot_that_raises_is_500_with_the_traceback_in_the_log_and_not_in_the_answer(obedient: Launcher) -> None:
    response = post(obedient, {"do": "raise"}, x_daily_session_id="raise-1")
    assert response.status_code == 500
    error = response.json()["error"]
    assert (error["code"], error["session_id"]) == ("bot_failed", "raise-1")
    assert "the bot is broken" not in response.text
    assert "Traceback" not in response.text
    log = obedient.log()
    assert "raise-1 - bot in bot.py failed: ValueError" in log
    assert re.search(r"\nTraceback \(most recent call last\):\n+  File \".*bot\.py\", line", log)
    assert "ValueError: the bot is broken" in log
    assert "s3cr3t-in-a-variable" not in log  # loguru can show the values of variables


def test_the_status_of_a_failed_bot_can_be_set() -> None:
    with Launcher("obedient", BOT_FAILURE_STATUS="200") as launcher:
        response = post(launcher, {"do": "raise"})
        assert response.status_code == 200
        assert response.json()["error"]["code"] == "bot_failed"


@pytest.mark.parametrize(
    ("body", "status", "outcome"),
    [
        ({"do": "exit", "status": 3}, 500, "failed"),
        ({"do": "exit", "status": None}, 200, "completed"),
        ({"do": "base-exception"}, 500, "failed"),
        ({"do": "cancel-itself"}, 200, "cancelled"),
        ({"do": "disconnected"}, 200, "disconnected"),
        ({"do": "exit-in-task"}, 200, "completed"),
    ],
)
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_whatever_a_bot_raises_ends_its_own_session_only(
    loops: dict[str, Launcher], loop: str, body: dict[str, Any], status: int, outcome: str
) -> None:
    launcher = loops[loop]
    with ThreadPoolExecutor() as pool:
        other = pool.submit(post, launcher, {"do": "sleep", "seconds": 0.5})
        response = post(launcher, body)
        assert (response.status_code, response.headers["x-pipecat-session-outcome"]) == (status, outcome)
        assert other.result().status_code == 200
    assert launcher.is_ready()


@pytest.fixture(scope="module")
def loops() -> Any:
    plain = Launcher("obedient", PIPECAT_EVENT_LOOP="asyncio")
    fast = Launcher("obedient", PIPECAT_EVENT_LOOP="uvloop")
    with plain, fast:
        yield {"asyncio": plain, "uvloop": fast}


def test_a_session_in_use_is_409() -> None:
    with Launcher("obedient") as launcher, ThreadPoolExecutor() as pool:
        first = pool.submit(post, launcher, {"do": "sleep", "seconds": 1}, x_daily_session_id="same")
        launcher.wait_for_log("Session started")
        second = post(launcher, x_daily_session_id="same")
        assert (second.status_code, second.json()["error"]["code"]) == (409, "duplicate_session")
        assert second.json()["error"]["session_id"] == "same"
        assert first.result().status_code == 200
        assert post(launcher, x_daily_session_id="same").status_code == 200


def test_a_second_call_is_refused_with_429_while_the_first_is_running() -> None:
    with Launcher("obedient", MAX_SESSIONS="1") as launcher, ThreadPoolExecutor() as pool:
        first = pool.submit(post, launcher, {"do": "sleep", "seconds": 1})
        launcher.wait_for_log("Session started")
        second = post(launcher)
        assert (second.status_code, second.json()["error"]["code"]) == (429, "at_capacity")
        assert second.headers["retry-after"] == "5"
        assert "x-pipecat-launcher" in second.headers
        assert launcher.http.get("/readyz").status_code == 503
        assert first.result().status_code == 200
        until(launcher.is_ready, "the place is free")
        assert post(launcher).status_code == 200


def test_of_many_calls_at_once_exactly_as_many_run_as_there_are_slots() -> None:
    async def storm(port: int) -> list[int]:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:
            posts = [client.post("/bot", json={"do": "sleep", "seconds": 2}) for _ in range(40)]
            return [response.status_code for response in await asyncio.gather(*posts)]

    with Launcher("obedient", MAX_SESSIONS="3") as launcher:
        statuses = asyncio.run(storm(launcher.port))
        assert (statuses.count(200), statuses.count(429)) == (3, 37)


def test_a_session_is_ended_when_its_time_is_up() -> None:
    with Launcher("obedient", MAX_SESSION_SECONDS="1") as launcher, measured() as seconds:
        response = post(launcher, {"do": "hang"})
        assert (response.status_code, response.headers["x-pipecat-session-outcome"]) == (200, "expired")
        assert 1 <= seconds() < 1.9
        # The platform's header shortens the limit and cannot lengthen it.
        for header, least, most in (("0.2", 0.2, 0.9), ("30", 1.0, 1.9)):
            with measured() as seconds:
                assert post(launcher, {"do": "hang"}, x_pcc_max_session_seconds=header).status_code == 200
                assert least <= seconds() < most


def test_a_bot_that_ignores_its_cancellation_is_logged_and_loses_its_slot() -> None:
    variables: dict[str, Any] = {"SESSION_CANCEL_GRACE": "0.3", "MAX_SESSION_SECONDS": "0.2", "MAX_SESSIONS": "1"}
    with Launcher("obedient", **variables) as launcher, measured() as seconds:
        response = post(launcher, {"do": "swallow", "seconds": 3}, x_daily_session_id="stubborn")
        assert response.headers["x-pipecat-session-outcome"] == "expired"
        assert seconds() < 2
        assert "bot in bot.py ignored its cancellation for 0.3 s at bot.py:" in launcher.log()
        assert "in swallow: await asyncio.sleep(0.05); session stubborn no longer holds a slot" in launcher.log()
        assert post(launcher).status_code == 200


def test_a_caller_that_goes_away_does_not_end_the_session() -> None:
    with Launcher("obedient") as launcher:
        with pytest.raises(httpx.ReadTimeout):
            launcher.http.post("/bot", json={"do": "sleep", "seconds": 1}, timeout=0.3)
        until(lambda: any("ended" in said for said in launcher.said()), "the bot's end")
        launcher.wait_for_log("Session ended: completed")


def test_neither_bodies_nor_tokens_are_logged() -> None:
    with Launcher("obedient", PIPECAT_LOG_LEVEL="TRACE") as launcher:
        launcher.http.post(
            "/bot?token=secret-query",
            content=b'{"do": "raise", "key": "secret-body"}',
            headers={"x-daily-room-url": "https://secret-room", "x-daily-room-token": "secret-token"},
        )
        launcher.http.post("/bot", content=b'{"secret-garbage')
        lines = [line for line in launcher.log().splitlines() if not line.startswith('{"said"')]
        assert not [line for line in lines if "secret-" in line]


@in_one_process
def test_the_hooks_run_once_each_in_order() -> None:
    with Launcher("hooks", DRAIN_NOTICE="0") as launcher:
        assert post(launcher).status_code == 200
        assert post(launcher).status_code == 200
        assert launcher.stop() == 0
        assert [said["said"] for said in launcher.said()] == [
            "setup ran",
            "create_file_storage ran",
            "bot ran with the storage",
            "bot ran with the storage",
            "teardown ran",
        ]


def test_a_caller_that_leaves_in_the_middle_of_its_body_is_one_line() -> None:
    import socket

    with Launcher("obedient") as launcher:
        with socket.create_connection(("127.0.0.1", launcher.port)) as sock:
            sock.sendall(b"POST /bot HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{")
        launcher.wait_for_log("The caller disconnected before its request was complete")
        assert "Traceback" not in launcher.log()
        assert post(launcher).status_code == 200


def test_a_process_that_the_bot_spawns_is_not_a_second_launcher() -> None:
    with Launcher("processes") as launcher:
        assert launcher.http.post("/bot", json={"number": 12}).status_code == 200, launcher.log()
        launcher.wait_for_log("squared 144")
        assert launcher.log().count("Ready: ") == 1


def test_garbage_leaves_the_next_session_alone(obedient: Launcher) -> None:
    for content in (b"", b"\x00" * 50, b"null", b"[]", b'"text"', b"{}" * 10):
        obedient.http.post("/bot", content=content)
    assert post(obedient, {"do": "return"}).status_code == 200
