"""What callers of the platform send as its documentation says: dial-in bodies, Meta's verification, Twilio's host."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pipecat.runner.types import DailyDialinRequest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.process.gateway.conftest import stop_all
from tests.support.daily_api import DailyApi
from tests.support.graph_api import VARIABLES, VERIFICATION
from tests.support.launchers import Launcher, until

PUBLIC, PRIVATE = "pk_public-0123456789", "sk_private-0123456789"
DIALIN = {"call_id": "c-1", "call_domain": "d-1"}


@pytest.fixture(scope="module")
def launcher(daily: DailyApi) -> Iterator[Launcher]:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, "PIPECAT_AGENT_NAME": "ada"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as running:
        yield running
        stop_all(running)


@pytest.mark.parametrize(
    "numbers",
    [
        {"from": "+15551", "to": "+15552"},
        {"From": "+15551", "To": "+15552"},
        {"from": "+15551", "To": "+15552"},
        {"from": "+15551", "From": None, "to": "+15552", "To": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/start", "/v1/public/ada/start"])
def test_a_dial_in_call_from_a_webhook_of_the_user_s_own_is_what_pipecat_needs(
    launcher: Launcher, daily: DailyApi, path: str, numbers: dict[str, Any]
) -> None:
    body = {"dialin_settings": {**DIALIN, **numbers}, "customer": 7}
    content = launcher.http.post(path, json={"createDailyRoom": True, "body": body}).json()
    given = launcher.arguments(content["sessionId"])["body"]
    request = DailyDialinRequest.model_validate(given)
    assert (request.daily_api_key, request.daily_api_url) == (daily.key, daily.url)
    assert (request.dialin_settings.From, request.dialin_settings.To) == ("+15551", "+15552")
    assert (given["dialin_settings"]["from"], given["dialin_settings"]["to"]) == ("+15551", "+15552")
    assert given["customer"] == 7


def test_the_fields_of_daily_s_own_webhook_are_taken_too(launcher: Launcher) -> None:
    call = {"From": "+1", "To": "+2", "callId": "c-1", "callDomain": "d-1", "sipHeaders": {"x": "y"}}
    content = launcher.http.post("/v1/public/ada/start", json={"body": {"dialin_settings": call}}).json()
    settings = DailyDialinRequest.model_validate(launcher.arguments(content["sessionId"])["body"]).dialin_settings
    assert (settings.call_id, settings.call_domain, settings.sip_headers) == ("c-1", "d-1", {"x": "y"})


@pytest.mark.parametrize("url", ["https://theirs.example/v1", 7])
def test_our_key_is_not_given_with_another_url(launcher: Launcher, url: Any) -> None:
    body = {"dialin_settings": DIALIN, "daily_api_url": url}
    content = launcher.http.post("/v1/public/ada/start", json={"body": body}).json()
    assert launcher.arguments(content["sessionId"])["body"].keys() == {"dialin_settings", "daily_api_url"}


def test_what_the_caller_gives_is_kept(launcher: Launcher) -> None:
    own = {"daily_api_key": "theirs", "daily_api_url": "https://theirs.example"}
    call = {**DIALIN, "From": "+1", "from": "+2", "To": "+3", "to": "+4"}
    content = launcher.http.post("/v1/public/ada/start", json={"body": {"dialin_settings": call, **own}}).json()
    assert launcher.arguments(content["sessionId"])["body"] == {"dialin_settings": call, **own}


@pytest.mark.parametrize(
    "body", [{"name": "Ada"}, {"dialin_settings": "x"}, {"dialout_settings": {}}, [], "text", None]
)
def test_other_bodies_get_no_key(launcher: Launcher, body: Any) -> None:
    content = launcher.http.post("/v1/public/ada/start", json={"body": body}).json()
    assert launcher.arguments(content["sessionId"])["body"] == ({} if body is None else body)


def test_a_dial_in_call_without_a_key_is_a_warning() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as running:
        answer = running.http.post("/v1/public/ada/start", json={"body": {"dialin_settings": DIALIN}})
        assert answer.status_code == 200
        (line,) = running.lines("its body has no daily_api_key; set DAILY_API_KEY")
        assert answer.json()["sessionId"] in line


@pytest.mark.parametrize("own", [VERIFICATION, ""])
def test_meta_verifies_with_a_public_key_too(own: str) -> None:
    keys = {"PIPECAT_PUBLIC_API_KEYS": f"pk_another-0123456789,{PUBLIC}", "PIPECAT_PRIVATE_API_KEYS": PRIVATE}
    variables: dict[str, Any] = {**VARIABLES, **keys, "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN": own}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as running:
        for path in ("/whatsapp", "/v1/public/webhooks/org/ada/whatsapp"):
            for token, status in ((PUBLIC, 200), (own, 200 if own else 403), (PRIVATE, 403), ("guess", 403)):
                query = {"hub.mode": "subscribe", "hub.verify_token": token, "hub.challenge": "42"}
                answer = running.http.get(path, params=query)
                assert answer.status_code == status, (path, token)
                assert (answer.text == "42") is (status == 200)
        assert not running.lines("Meta cannot verify this webhook")


def twilio_start(**parameters: str) -> str:
    start = {"streamSid": "MZ1", "callSid": "CA1", "customParameters": parameters}
    return json.dumps({"event": "start", "start": start, "streamSid": "MZ1"})


@pytest.mark.parametrize("path", ["/ws/twilio", "/ws"])
@pytest.mark.parametrize("host", [None, "ada.my-org", "ada"])
def test_a_stream_of_twilio_for_this_agent_is_served(launcher: Launcher, path: str, host: str | None) -> None:
    first = twilio_start() if host is None else twilio_start(_pipecatCloudServiceHost=host)
    with connect(launcher.websocket_url(path), proxy=None) as stream:
        for message in ('{"event": "connected"}', first, "hello"):
            stream.send(message)
            assert stream.recv(timeout=10) == message


@pytest.mark.parametrize("path", ["/ws/twilio", "/ws"])
def test_a_stream_of_twilio_for_another_agent_is_ended(launcher: Launcher, path: str) -> None:
    lines = len(launcher.lines("names another agent than PIPECAT_AGENT_NAME"))
    with connect(launcher.websocket_url(path), proxy=None) as stream:
        stream.send('{"event": "connected"}')
        stream.send(twilio_start(_pipecatCloudServiceHost="bob.my-org"))
        with pytest.raises(ConnectionClosed):
            while True:
                stream.recv(timeout=10)
        assert stream.protocol.close_code == 4009
    until(lambda: len(launcher.lines("names another agent than PIPECAT_AGENT_NAME")) == lines + 1, "the line")


def test_without_an_agent_s_name_every_stream_is_served() -> None:
    with (
        Launcher("gateway", PIPECAT_GATEWAY="1") as running,
        connect(running.websocket_url("/ws/twilio"), proxy=None) as stream,
    ):
        stream.send(twilio_start(_pipecatCloudServiceHost="bob.my-org"))
        stream.send("hello")
        assert stream.recv(timeout=10)
        assert stream.recv(timeout=10) == "hello"
