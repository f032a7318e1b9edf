"""``POST /start`` and its twin of Pipecat Cloud."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipecat_base.gateway.daily import Daily, Room
from tests.process.gateway.conftest import sessions
from tests.support.callers import arguments
from tests.support.daily_api import DailyApi
from tests.support.launchers import BOTS, PIPECAT, Launcher, measured, until


def test_a_start_without_transport_waits_for_a_webrtc_offer_as_in_pipecats_runner(gateway: Launcher) -> None:
    answer = gateway.http.post("/start", json={"body": {"name": "Ada"}})
    assert answer.status_code == 200
    session_id = answer.json()["sessionId"]
    assert answer.json() == {"sessionId": session_id}
    assert answer.headers["sessionId"] == answer.headers["x-daily-session-id"] == session_id
    (session,) = sessions(gateway)
    assert session["sessionId"] == session_id
    assert (session["state"], session["transport"]) == ("waiting", "webrtc")
    assert isinstance(session["age"], float)


def test_a_start_without_transport_at_pipecat_clouds_address_runs_a_bot_at_once(gateway: Launcher) -> None:
    answer = gateway.http.post("/v1/public/my-agent/start", json={"createDailyRoom": False, "body": {"name": "Ada"}})
    session_id = answer.json()["sessionId"]
    assert arguments(gateway, session_id)["args"]["body"] == {"name": "Ada"}
    (session,) = sessions(gateway)
    assert (session["state"], session["transport"]) == ("running", "plain")


def test_default_ice_servers_are_returned_on_request(gateway: Launcher) -> None:
    answer = gateway.http.post("/start", json={"transport": "webrtc", "enableDefaultIceServers": True})
    assert answer.json()["iceConfig"] == {"iceServers": [{"urls": ["stun:stun.l.google.com:19302"]}]}


def test_configured_ice_servers_are_given_to_everyone() -> None:
    servers = '[{"urls": "turn:turn.example:3478", "username": "u", "credential": "c"}]'
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_ICE_SERVERS=servers) as launcher:
        answer = launcher.http.post("/start", json={"transport": "webrtc"})
    expected = {"urls": "turn:turn.example:3478", "username": "u", "credential": "c"}
    assert answer.json()["iceConfig"] == {"iceServers": [expected]}


def test_a_daily_room_is_made_with_the_requested_properties(gateway: Launcher, daily: DailyApi) -> None:
    answer = gateway.http.post(
        "/start",
        json={
            "createDailyRoom": True,
            "dailyRoomProperties": {"max_participants": 2},
            "dailyMeetingTokenProperties": {"user_name": "Ada"},
            "body": {"name": "Ada"},
        },
    )
    assert answer.status_code == 200, answer.text
    content = answer.json()
    given = arguments(gateway, content["sessionId"])
    assert given["args"]["room_url"] == content["dailyRoom"]
    assert given["args"]["token"] == content["dailyToken"]
    room = daily.rooms[content["dailyRoom"].rpartition("/")[2]]
    assert room["max_participants"] == 2
    assert room["eject_at_room_exp"] is True
    assert time.time() < room["exp"] <= time.time() + 4 * 3600
    assert daily.tokens[-1]["user_name"] == "Ada"
    (session,) = sessions(gateway)
    assert session["transport"] == "daily"


@pytest.mark.parametrize("exp", [4_000_000_000, 1e300, None, "inf", "nan", "-inf", -1])
def test_no_room_outlives_the_documented_hours(gateway: Launcher, daily: DailyApi, exp: object) -> None:
    asked = {"exp": exp, "eject_at_room_exp": False}
    answer = gateway.http.post("/start", json={"createDailyRoom": True, "dailyRoomProperties": asked})
    assert answer.status_code == 200, answer.text
    room = daily.rooms[answer.json()["dailyRoom"].rpartition("/")[2]]
    assert time.time() < room["exp"] <= time.time() + 4 * 3600
    assert room["eject_at_room_exp"] is True
    assert "dailyRoomProperties.exp is shortened: a room lives for 14400 s at most" in gateway.log()


def test_a_room_may_end_sooner_and_may_live_as_long_as_a_session(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, "MAX_SESSION_SECONDS": "20000"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        for seconds, expected in ((60, 60), (19_000, 19_000), (30_000, 20_000)):
            exp = time.time() + seconds
            wanted = {"createDailyRoom": True, "dailyRoomProperties": {"exp": exp}}
            answer = launcher.http.post("/start", json=wanted)
            room = daily.rooms[answer.json()["dailyRoom"].rpartition("/")[2]]
            assert room["exp"] == pytest.approx(exp - seconds + expected, abs=30)
        assert len(launcher.lines("exp is shortened")) == 1


def test_daily_s_refusal_is_returned_and_starts_no_session(gateway: Launcher, daily: DailyApi) -> None:
    daily.failure = 400
    answer = gateway.http.post("/start", json={"createDailyRoom": True})
    assert answer.status_code == 502
    assert "no such property" in answer.json()["message"]
    wrong = gateway.http.post("/start", json={"createDailyRoom": True, "dailyRoomProperties": {"exp": "soon"}})
    assert (wrong.status_code, wrong.json()["field"]) == (400, "dailyRoomProperties")
    # The bot of a call to a number is given it, and prints what it is given.
    assert not [line for line in gateway.lines(daily.key) if not line.startswith('{"said"')]
    assert sessions(gateway) == []


def test_a_room_for_which_daily_makes_no_token_is_given_back(gateway: Launcher, daily: DailyApi) -> None:
    rooms, deleted = set(daily.rooms), len(daily.deleted)
    daily.token_failure = 500
    answer = gateway.http.post("/start", json={"createDailyRoom": True})
    assert answer.status_code == 502
    assert set(daily.rooms) == rooms
    assert len(daily.deleted) == deleted + 1


def test_a_slot_is_held_while_its_room_is_made(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    with (
        Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSIONS="1", **variables) as launcher,
        daily.slow() as asked,
        ThreadPoolExecutor() as pool,
    ):
        early = pool.submit(launcher.http.post, "/start", json={"createDailyRoom": True})
        asked.wait(10)
        assert launcher.http.post("/v1/public/agent/start").status_code == 429
        daily.go_on()
        assert early.result().status_code == 200


def test_a_session_whose_room_was_being_made_at_sigterm_has_its_call(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, "DRAIN_NOTICE": "0"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", SHUTDOWN_TIMEOUT="2", **variables) as launcher:
        with daily.slow() as asked, ThreadPoolExecutor() as pool:
            early = pool.submit(launcher.http.post, "/start", json={"createDailyRoom": True})
            asked.wait(10)
            launcher.signal()
            launcher.wait_for_log("Draining: sessions running: 1")
            daily.go_on()
            assert early.result().status_code == 200
            session_id = early.result().json()["sessionId"]
        assert launcher.wait() == 0
        launcher.wait_for_log(f"| {session_id} - Session ended: drained")
        assert "Traceback" not in launcher.log()


@pytest.mark.parametrize("name", ["DAILY_ROOM_URL", "DAILY_SAMPLE_ROOM_URL"])
@pytest.mark.parametrize("asked", [{"createDailyRoom": True}, {"transport": "daily", "createDailyRoom": False}])
def test_a_fixed_daily_room_is_every_sessions(daily: DailyApi, name: str, asked: dict[str, Any]) -> None:
    fixed = "https://example.daily.co/fixed"
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, name: fixed}
    made = len(daily.rooms)
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        answer = launcher.http.post("/start", json={**asked, "dailyRoomProperties": {"max_participants": 2}})
        started = answer.json()
        assert (answer.status_code, started["dailyRoom"]) == (200, fixed)
        told = launcher.arguments(started["sessionId"])
        assert (told["room_url"], told["token"]) == (fixed, started["dailyToken"])
        launcher.wait_for_log("dailyRoomProperties are not used: DAILY_ROOM_URL names the room")
    assert (daily.tokens[-1]["room_name"], len(daily.rooms)) == ("fixed", made)


def test_a_call_from_a_phone_has_a_room_of_its_own_beside_a_fixed_one(daily: DailyApi) -> None:
    fixed = "https://example.daily.co/fixed"
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, "DAILY_ROOM_URL": fixed}
    call = {"From": "+15550001", "To": "+15550002", "callId": "1", "callDomain": "2"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        assert launcher.http.post("/daily-dialin-webhook", json=call).json()["dailyRoom"] != fixed


def test_a_fixed_daily_room_is_not_deleted_when_a_session_fails(daily: DailyApi) -> None:
    async def fail() -> None:
        async with Daily(daily.key, daily.url).deleting_on_failure(Room(f"{daily.url}/fixed", "t", is_fixed=True)):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(fail())
    assert "fixed" not in daily.deleted


def test_a_fixed_daily_room_survives_a_session_that_does_not_start(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    daily.token_failure = 500
    deleted = len(daily.deleted)
    with Launcher("gateway", PIPECAT_GATEWAY="1", DAILY_ROOM_URL="https://e.daily.co/fixed", **variables) as launcher:
        assert launcher.http.post("/start", json={"createDailyRoom": True}).status_code == 502
    assert len(daily.deleted) == deleted


def test_a_daily_room_needs_a_key() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        answer = launcher.http.post("/start", json={"createDailyRoom": True})
    assert (answer.status_code, answer.json()["message"]) == (501, "Daily is not configured here: set DAILY_API_KEY.")


def test_a_websocket_client_gets_the_session_that_was_started_for_it(gateway: Launcher) -> None:
    answer = gateway.http.post("/start", json={"transport": "websocket", "body": {"name": "Ada"}})
    content = answer.json()
    assert content.keys() == {"wsUrl", "sessionId"}
    assert sessions(gateway) == []  # until the client connects
    with connect(content["wsUrl"]) as client:
        client.send("hello")
        assert client.recv(timeout=10) == "hello"
        given = arguments(gateway, content["sessionId"])["args"]
        assert (given["body"], given["transport_type"]) == ({"name": "Ada"}, "websocket")
    until(lambda: not sessions(gateway), "the session's end")
    with pytest.raises(InvalidStatus):  # it has had its session
        connect(content["wsUrl"])


def test_a_client_cannot_change_the_body_of_its_session(gateway: Launcher) -> None:
    content = gateway.http.post("/start", json={"transport": "websocket", "body": {"user": "ada"}}).json()
    other = base64.b64encode(b'{"user": "root"}').decode()
    with connect(f"{content['wsUrl']}?body={other}") as client:
        client.send("hello")
        client.recv(timeout=10)
        assert arguments(gateway, content["sessionId"])["args"]["body"] == {"user": "ada"}


def test_a_client_cannot_choose_the_id_of_its_session(gateway: Launcher) -> None:
    chosen = {"x-daily-session-id": "chosen"}
    content = gateway.http.post("/start", json={"transport": "websocket"}).json()
    for url in (content["wsUrl"], gateway.websocket_url("/ws/generic")):
        with connect(url, additional_headers=chosen) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
            (session,) = sessions(gateway)
            assert session["sessionId"] != "chosen"
            assert (session["sessionId"] == content["sessionId"]) is (url == content["wsUrl"])
        until(lambda: not sessions(gateway), "the session's end")


def test_a_pending_session_can_be_cancelled(gateway: Launcher) -> None:
    content = gateway.http.post("/start", json={"transport": "websocket"}).json()
    assert gateway.http.delete(f"/sessions/{content['sessionId']}").status_code == 200
    with pytest.raises(InvalidStatus):
        connect(content["wsUrl"])


def test_what_a_caller_names_makes_no_line_of_its_own_in_the_log(gateway: Launcher) -> None:
    forged = {"sip": {"display_name": "x", "codecs": {"a\n2026 | CRITICAL | FORGED": 1}}}
    answer = gateway.http.post("/start", json={"createDailyRoom": True, "dailyRoomProperties": forged})
    assert answer.status_code == 400
    assert not [line for line in gateway.log().splitlines() if line.startswith("2026 | CRITICAL")]


@pytest.mark.parametrize("path", ["/start", "/telephony/twilio", "/daily-dialin-webhook"])
def test_a_caller_who_disconnects_before_its_body_arrives_leaves_no_traceback(gateway: Launcher, path: str) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:
        sock.sendall(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{{".encode())
        time.sleep(0.1)
    gateway.wait_for_log(f"POST {path} 400")
    assert "ClientDisconnect" not in gateway.log()


def test_starts_beyond_the_pending_sessions_are_429_and_remove_none_of_them() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        promised = launcher.http.post("/start", json={"transport": "websocket", "body": {"name": "Ada"}}).json()
        large = {"transport": "websocket", "body": "x" * 700_000}
        answers = [launcher.http.post("/start", json=large) for _ in range(97)]
        assert [answer.status_code for answer in answers] == [200] * 95 + [429] * 2
        assert (answers[-1].json()["reason"], answers[-1].headers["retry-after"]) == ("at_capacity", "5")
        with connect(launcher.websocket_url(f"/sessions/{promised['sessionId']}/ws-client"), proxy=None):
            assert arguments(launcher, promised["sessionId"])["args"]["body"] == {"name": "Ada"}


def test_a_pending_session_counts_until_its_client_connects() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher, contextlib.ExitStack() as calls:
        large = {"transport": "websocket", "body": "x" * 700_000}
        for _ in range(100):
            promised = launcher.http.post("/start", json=large)
            assert promised.status_code == 200
            url = launcher.websocket_url(f"/sessions/{promised.json()['sessionId']}/ws-client")
            calls.enter_context(connect(url, proxy=None))
        assert len(sessions(launcher)) == 100


def test_webrtc_starts_beyond_the_slots_are_429_and_take_none_from_a_waiting_session() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSIONS="1", PIPECAT_START_GRACE="0") as launcher:
        promised = launcher.http.post("/start").json()
        answers = [launcher.http.post("/start") for _ in range(5)]
        assert {(answer.status_code, answer.headers["retry-after"]) for answer in answers} == {(429, "5")}
        assert [session["sessionId"] for session in sessions(launcher)] == [promised["sessionId"]]


def test_a_websocket_of_an_unknown_session_is_404(gateway: Launcher) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(gateway.websocket_url(f"/sessions/{uuid.uuid4()}/ws-client"))
    assert refused.value.response.status_code == 404


@pytest.mark.parametrize("provider", ["twilio", "telnyx", "plivo", "exotel"])
def test_a_phone_start_says_where_to_stream_to(gateway: Launcher, provider: str) -> None:
    answer = gateway.http.post("/start", json={"transport": provider}, headers={"host": "localhost:1234"})
    assert answer.json() == {"wsUrl": "ws://localhost:1234/ws"}
    behind = {"x-forwarded-host": "bot.example", "x-forwarded-proto": "https"}
    answer = gateway.http.post("/start", json={"transport": provider}, headers=behind)
    assert answer.json() == {"wsUrl": "wss://bot.example/ws"}
    # Each proxy on the way adds its own: what the caller used comes first.
    chain = {"x-forwarded-host": "bot.example, inner", "x-forwarded-proto": "https, http"}
    answer = gateway.http.post("/start", json={"transport": provider}, headers=chain)
    assert answer.json() == {"wsUrl": "wss://bot.example/ws"}


def test_with_token_authentication_a_started_websocket_gets_its_token_and_another_none() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_WEBSOCKET_AUTH="token") as launcher:
        content = launcher.http.post("/start", json={"transport": "websocket"}).json()
        with pytest.raises(InvalidStatus) as refused:
            connect(content["wsUrl"])
        assert refused.value.response.status_code == 403
        with connect(f"{content['wsUrl']}?token={content['token']}") as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        phone = launcher.http.post("/start", json={"transport": "twilio"}).json()
        with connect(f"{phone['wsUrl']}/{phone['token']}") as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        bearer = launcher.http.post("/start", json={"transport": "websocket"}).json()
        headers = {"authorization": f"Bearer {bearer['token']}"}
        with connect(bearer["wsUrl"], additional_headers=headers) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


def test_livekit_gets_a_room_and_two_different_tokens() -> None:
    variables: dict[str, Any] = {
        "LIVEKIT_URL": "wss://livekit.example",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "s" * 32,
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        answer = launcher.http.post("/start", json={"transport": "livekit", "body": {"name": "Ada"}})
        assert answer.status_code == 200, answer.text
        content = answer.json()
        given = arguments(launcher, content["sessionId"])
    assert given["type"] == "LiveKitRunnerArguments"
    assert given["args"]["body"] == {"name": "Ada"}
    assert content["url"] == given["args"]["url"] == "wss://livekit.example"
    assert content["token"].count(".") == 2
    assert content["token"] != given["args"]["token"]


WITH_MOQ = (1, 8)
"""Versions of pipecat-ai before have no such arguments, or others."""


def assert_moq_is_refused(answer: httpx.Response) -> None:
    message = "The pipecat-ai that is installed here has no MOQRunnerArguments."
    assert (answer.status_code, answer.json()["message"]) == (501, message)


def test_moq_is_answered_once_the_bot_serves_it(tmp_path: Path) -> None:
    (tmp_path / "moq.py").touch()  # what is installed decides whether it is offered
    (tmp_path / "bot.py").write_text((BOTS / "gateway" / "bot.py").read_text())
    with Launcher(tmp_path, PIPECAT_GATEWAY="1") as launcher:
        assert "moq" in launcher.http.get("/status").json()["transports"]
        answer = launcher.http.post("/start", json={"transport": "moq", "namespace": "mine"})
        if PIPECAT < WITH_MOQ:
            assert_moq_is_refused(answer)
            return
        assert answer.status_code == 200, answer.text
        content = answer.json()
        given = arguments(launcher, content["sessionId"])
    assert given["type"] == "MOQRunnerArguments"
    assert (given["args"]["namespace"], given["args"]["serve"]) == ("mine", True)
    assert content["moq"] == {
        "relayUrl": "https://localhost:4080/moq",
        "certHash": "AP8=",
        "serve": True,
        "namespace": "mine",
        "clientId": "request",
        "botId": "response",
        "transcriptTrack": "transcript.json.z",
    }


@pytest.mark.parametrize("do", ["raise", "return"])
def test_a_bot_that_ends_before_it_serves_moq_is_not_waited_for(tmp_path: Path, do: str) -> None:
    (tmp_path / "moq.py").touch()
    (tmp_path / "bot.py").write_text("async def bot(args):\n    if args.body['do'] == 'raise': raise ValueError\n")
    with Launcher(tmp_path, PIPECAT_GATEWAY="1") as launcher, measured() as seconds:
        answer = launcher.http.post("/start", json={"transport": "moq", "body": {"do": do}})
        if PIPECAT < WITH_MOQ:
            assert_moq_is_refused(answer)
            return
        assert (answer.status_code, answer.json()["reason"]) == (503, "not_running")
        assert seconds() < 10  # of 15


def test_livekit_and_moq_say_what_they_lack(gateway: Launcher) -> None:
    livekit = gateway.http.post("/start", json={"transport": "livekit"})
    assert (livekit.status_code, livekit.json()["reason"]) == (501, "not_supported")
    assert "LIVEKIT_URL" in livekit.json()["message"]
    moq = gateway.http.post("/start", json={"transport": "moq"})
    assert (moq.status_code, moq.json()["message"]) == (501, "MoQ is not installed here: pip install pipecat-ai[moq].")
    assert sessions(gateway) == []


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ("[]", "body"),
        ("{", "body"),
        ('"text"', "body"),
        ('{"transport": "pigeon"}', "transport"),
        ('{"transport": 3}', "transport"),
        ('{"createDailyRoom": "perhaps"}', "createDailyRoom"),
        ('{"dailyRoomProperties": []}', "dailyRoomProperties"),
        ('{"transport": "moq", "namespace": "\\ud800"}', "namespace"),
    ],
)
def test_an_unusable_start_is_400_and_says_why(gateway: Launcher, content: str, field: str) -> None:
    answer = gateway.http.post("/start", content=content)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["code"] == "400"
    assert answer.json()["error"] == answer.json()["message"]
    assert sessions(gateway) == []


@pytest.mark.parametrize("content", ["", "{}", "null"])
def test_an_empty_start_is_a_start(gateway: Launcher, content: str) -> None:
    assert gateway.http.post("/start", content=content).status_code == 200


def test_at_capacity_a_start_is_429_and_makes_no_room(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    with Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSIONS="1", **variables) as launcher:
        assert launcher.http.post("/start").status_code == 200
        rooms = len(daily.rooms)
        answer = launcher.http.post("/start", json={"createDailyRoom": True})
        assert len(daily.rooms) == rooms
        message = "MAX_SESSIONS (1) are running."
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"
        assert answer.json() == {
            "status": 429,
            "code": "429",
            "message": message,
            "error": f"PCC-AGENT-AT-CAPACITY: {message}",
            "detail": message,
            "reason": "at_capacity",
        }


def test_another_agent_than_the_named_one_is_404() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_AGENT_NAME="ada") as launcher:
        assert launcher.http.post("/v1/public/ada/start").status_code == 200
        answer = launcher.http.post("/v1/public/bob/start")
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (404, "404", "unknown_agent")
        with pytest.raises(InvalidStatus) as refused:
            connect(launcher.websocket_url("/ws/twilio?serviceHost=bob.org"))
        assert refused.value.response.status_code == 404
        with connect(launcher.websocket_url("/ws/twilio?serviceHost=ada.org")) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


def test_a_request_waits_while_the_bot_is_set_up() -> None:
    with Launcher("gateway", wait=False, PIPECAT_GATEWAY="1", SETUP="1") as launcher:
        until(lambda: "NONE" in launcher.log() or _listens(launcher), "listening")
        answer = launcher.http.post("/v1/public/agent/start")
        assert answer.status_code == 200


def _listens(launcher: Launcher) -> bool:
    try:
        launcher.http.get("/livez")
    except Exception:
        return False
    return True


def test_in_a_pod_nothing_of_the_gateway_is_imported_or_served() -> None:
    with Launcher("gateway") as launcher:
        assert launcher.http.post("/start").status_code == 404
        assert launcher.http.get("/").status_code == 404
        assert launcher.http.get("/sessions").status_code == 404
        launcher.http.post("/bot", json={"do": "return"})
        assert launcher.said()[0]["gateway"] is False
