"""``flow_config`` of ``POST /start``, and ``dev --flow``: a session's own flow over every transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.process.gateway.conftest import sessions, stop_all
from tests.support.daily_api import DailyApi
from tests.support.launchers import BOTS, PIPECAT, Launcher, run
from tests.support.offers import NO_ICE, SDP

FLOW = '{"initial_node": "s3cr3t-flow"}'
LIVEKIT: dict[str, Any] = {
    "LIVEKIT_URL": "wss://livekit.example",
    "LIVEKIT_API_KEY": "key",
    "LIVEKIT_API_SECRET": "s" * 32,
}
PHONES = ["twilio", "telnyx", "plivo", "exotel"]


@pytest.fixture(scope="module")
def launcher(daily: DailyApi) -> Iterator[Launcher]:
    variables = {**NO_ICE, **LIVEKIT, "DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as running:
        yield running


@pytest.fixture(autouse=True)
def without_sessions(launcher: Launcher) -> Iterator[None]:
    yield
    stop_all(launcher)


def start(launcher: Launcher, path: str = "/start", **fields: Any) -> dict[str, Any]:
    answer = launcher.http.post(path, json=fields)
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def begin(launcher: Launcher, content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Connect as the caller of this answer of ``/start``; returns the bot's arguments."""
    session_id = content["sessionId"]
    if "wsUrl" in content:
        with connect(content["wsUrl"], proxy=None) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
    elif fields.get("transport") == "webrtc":
        offer = launcher.http.post(f"/sessions/{session_id}/api/offer", json={"sdp": SDP, "type": "offer"})
        assert offer.status_code == 200, offer.text
    return launcher.arguments(session_id)


@pytest.mark.parametrize(
    "fields",
    [
        {"transport": "webrtc"},
        {"transport": "websocket"},
        {"transport": "daily"},
        {"createDailyRoom": True},
        {"transport": "livekit"},
        *({"transport": phone} for phone in PHONES),
    ],
    ids=str,
)
def test_a_start_passes_its_flow_and_body_to_the_bot_over_every_transport(
    launcher: Launcher, fields: dict[str, Any]
) -> None:
    given = begin(launcher, start(launcher, flow_config=FLOW, body={"name": "Ada"}, **fields), **fields)
    assert (given["flow_config"], given["body"]) == (FLOW, {"name": "Ada"})
    given = begin(launcher, start(launcher, body={"do": "stay"}, **fields), **fields)  # the next session has none
    assert given["flow_config"] is None
    assert not [line for line in launcher.lines("s3cr3t-flow") if not line.startswith('{"said"')]


def test_a_start_at_pipecat_clouds_address_passes_its_flow(launcher: Launcher) -> None:
    content = start(launcher, "/v1/public/agent/start", flow_config="nodes: []\n")
    assert launcher.arguments(content["sessionId"])["flow_config"] == "nodes: []\n"


def test_a_moq_session_has_its_flow(tmp_path: Path) -> None:
    if PIPECAT < (1, 8):
        pytest.skip("this pipecat-ai has no such arguments")
    (tmp_path / "moq.py").touch()
    (tmp_path / "bot.py").write_text((BOTS / "gateway" / "bot.py").read_text())
    with Launcher(tmp_path, PIPECAT_GATEWAY="1") as running:
        content = start(running, transport="moq", flow_config=FLOW)
        assert running.arguments(content["sessionId"])["flow_config"] == FLOW


@pytest.mark.parametrize("flow", ["", " \n\t", 5, {}, [], True, None, "\ud800"], ids=repr)
@pytest.mark.parametrize("transport", ["webrtc", "websocket", "twilio", "daily"])
def test_a_flow_that_is_no_text_is_400_and_starts_nothing(launcher: Launcher, transport: str, flow: Any) -> None:
    answer = launcher.http.post("/start", content=json.dumps({"transport": transport, "flow_config": flow}))
    assert (answer.status_code, answer.json()["field"]) == (400, "flow_config")
    assert sessions(launcher) == []


def test_a_phone_s_stream_with_a_flow_is_for_one_call_and_needs_its_token() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_WEBSOCKET_AUTH="token") as running:
        content = start(running, transport="twilio", flow_config=FLOW)
        with pytest.raises(InvalidStatus):
            connect(content["wsUrl"], proxy=None)
        with connect(f"{content['wsUrl']}/{content['token']}", proxy=None) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        assert running.arguments(content["sessionId"])["flow_config"] == FLOW
        with pytest.raises(InvalidStatus):
            connect(f"{content['wsUrl']}/{content['token']}", proxy=None)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("phone_number", "What your bot reads belongs in body."),
        ("requestData", "What your bot reads belongs in body."),
        ("flowConfig", "Is flow_config meant?"),
        ("create_daily_room", "Is createDailyRoom meant?"),
        ("", "What your bot reads belongs in body."),
    ],
)
def test_an_unknown_field_of_a_start_is_a_warning_on_a_server(launcher: Launcher, name: str, hint: str) -> None:
    answer = launcher.http.post("/start", json={name: "value-of-the-caller"})
    assert answer.status_code == 200
    (line,) = launcher.lines(f"Ignored '{name}' of POST /start")
    assert hint in line
    assert f"| {answer.json()['sessionId']} - " in line
    assert "value-of-the-caller" not in launcher.log()


def test_of_many_unknown_fields_a_few_are_logged_each_on_one_short_line(launcher: Launcher) -> None:
    before = len(launcher.lines("Ignored "))
    names = {f"n{number}\n2026 | CRITICAL | FORGED {'x' * 1000}": 1 for number in range(1000)}
    assert launcher.http.post("/start", json=names).status_code == 200
    logged = launcher.lines("Ignored ")[before:]
    assert 0 < len(logged) <= 5
    assert max(map(len, logged)) < 400
    assert not [line for line in launcher.log().splitlines() if line.startswith("2026 | CRITICAL")]


def dev(*options: str, bot: str | Path = "gateway", **variables: Any) -> Launcher:
    return Launcher(bot, command=("dev", *options), **{**NO_ICE, **variables})


def test_an_unknown_field_of_a_start_is_an_error_in_development() -> None:
    with dev() as running:
        for path in ("/start", "/v1/public/agent/start"):
            answer = running.http.post(path, json={"phone_number": "+1555", "body": {}})
            assert (answer.status_code, answer.json()["field"]) == (400, "phone_number")
            assert "belongs in body" in answer.json()["message"]
        assert sessions(running) == []


@pytest.mark.parametrize("options", [[], ["--reload"]], ids=str)
def test_a_flow_of_dev_is_every_session_s_that_brings_none(tmp_path: Path, options: list[str]) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text("\ufeffnodes: [ä]\r\n", encoding="utf-8", newline="")
    with dev("--flow", str(file), *options) as running:
        for fields in ({"transport": "webrtc"}, {"transport": "websocket"}, {"transport": "daily"}):
            given = begin(running, start(running, **fields), **fields)
            assert given["flow_config"] == "nodes: [ä]\n"
        with connect(running.websocket_url("/ws"), proxy=None, additional_headers={}) as phone:
            phone.send("hello")
            phone.recv(timeout=10)
        running.post({"do": "return"}, x_daily_session_id="plain")
        assert running.arguments("plain")["flow_config"] == "nodes: [ä]\n"
        content = start(running, transport="websocket", flow_config=FLOW)
        assert begin(running, content)["flow_config"] == FLOW
        assert {line["args"]["flow_config"] for line in running.said() if "args" in line} == {"nodes: [ä]\n", FLOW}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "is blank; write a flow into it (YAML or JSON)"),
        (b"\xef\xbb\xbf \n", "is blank; write a flow into it (YAML or JSON)"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_flow_of_dev_that_cannot_be_used_ends_it_with_a_line(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "flow.yaml"
    if content is not None:
        file.write_bytes(content)
    ended = run("dev", "--flow", str(file), cwd=BOTS / "gateway")
    assert ended.returncode == 24
    assert f"--flow: {file} {why}" in ended.stderr
    assert "Traceback" not in ended.stderr
