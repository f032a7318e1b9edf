"""Phone providers' webhooks, and the streams that they open."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twilio.request_validator import RequestValidator
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from pipecat_base.gateway.providers import PROVIDERS
from pipecat_base.server.paths import PHONES
from tests.process.gateway.conftest import sessions
from tests.support.launchers import Launcher, until

PUBLIC = {"x-forwarded-host": "bot.example", "x-forwarded-proto": "https"}
CALL = {"CallSid": "CA1", "From": "+15551234567", "To": "+15559876543"}


def document(answer: Any) -> ElementTree.Element:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("application/xml")
    return ElementTree.fromstring(answer.text)


@pytest.mark.parametrize("path", ["/", "/telephony/twilio"])
def test_twilio_is_sent_to_the_stream_with_both_numbers(gateway: Launcher, path: str) -> None:
    response = document(gateway.http.post(path, data=CALL, headers=PUBLIC))
    stream = response.find("Connect/Stream")
    assert stream is not None
    assert stream.get("url") == "wss://bot.example/ws"
    numbers = {p.get("name"): p.get("value") for p in stream.findall("Parameter")}
    assert numbers == {"from_number": CALL["From"], "to_number": CALL["To"]}


@pytest.mark.parametrize("path", ["/", "/telephony/telnyx"])
def test_telnyx_is_sent_to_the_stream_in_both_directions(gateway: Launcher, path: str) -> None:
    response = document(gateway.http.post(path, data={**CALL, "ConnectionId": "1"}, headers=PUBLIC))
    stream = response.find("Connect/Stream")
    assert stream is not None
    assert (stream.get("url"), stream.get("bidirectionalMode")) == ("wss://bot.example/ws", "rtp")


@pytest.mark.parametrize("path", ["/", "/telephony/plivo"])
def test_plivo_is_sent_to_the_stream_in_both_directions(gateway: Launcher, path: str) -> None:
    response = document(gateway.http.post(path, data={"CallUUID": "1"}, headers=PUBLIC))
    stream = response.find("Stream")
    assert stream is not None
    assert stream.text == "wss://bot.example/ws"
    assert stream.attrib == {
        "bidirectional": "true",
        "keepCallAlive": "true",
        "contentType": "audio/x-mulaw;rate=8000",
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_exotel_gets_the_url_of_the_stream(gateway: Launcher, method: str) -> None:
    answer = gateway.http.request(method, "/telephony/exotel", headers=PUBLIC)
    assert answer.json() == {"url": "wss://bot.example/ws"}


def test_a_webhook_of_an_unknown_provider_is_400(gateway: Launcher) -> None:
    answer = gateway.http.post("/", data={"hello": "world"})
    assert answer.status_code == 400
    assert "/telephony/" in answer.json()["message"]
    assert gateway.http.post("/telephony/pigeon").status_code == 404


def test_what_a_caller_sends_does_not_break_the_document(gateway: Launcher) -> None:
    for name in ('"><Hangup/>', "\x00\x0b", "ü€\ud7ff", "&amp;", "]]>"):
        response = document(gateway.http.post("/telephony/twilio", data={"From": name}, headers=PUBLIC))
        assert [child.tag for child in response] == ["Connect"]
    hostile = {**PUBLIC, "x-forwarded-host": 'evil"/><Hangup/>'}
    assert [c.tag for c in document(gateway.http.post("/telephony/twilio", headers=hostile))] == ["Connect"]


def test_at_capacity_a_call_is_answered_busy() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSIONS="1") as launcher:
        launcher.http.post("/v1/public/agent/start")
        for provider, tag in (("twilio", "Reject"), ("telnyx", "Reject"), ("plivo", "Hangup")):
            response = document(launcher.http.post(f"/telephony/{provider}"))
            assert [(child.tag, child.get("reason")) for child in response] == [(tag, "busy")]


def test_with_twilios_token_both_the_webhook_and_the_stream_must_be_signed() -> None:
    sign = RequestValidator("t0ken").compute_signature
    unusable = {"x-twilio-signature": "x"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1", TWILIO_AUTH_TOKEN="t0ken") as launcher:
        unsigned = launcher.http.post("/telephony/twilio", data=CALL, headers=PUBLIC)
        assert (unsigned.status_code, unsigned.json()["reason"]) == (401, "signature_missing")
        wrong = {**PUBLIC, "x-twilio-signature": sign("https://bot.example/telephony/twilio", {})}
        refused = launcher.http.post("/telephony/twilio", data=CALL, headers=wrong)
        assert (refused.status_code, refused.json()["reason"]) == (403, "signature_wrong")
        good = {**PUBLIC, "x-twilio-signature": sign("https://bot.example/telephony/twilio?a=b", CALL)}
        response = document(launcher.http.post("/telephony/twilio?a=b", data=CALL, headers=good))
        stream = response.find("Connect/Stream")
        assert stream is not None
        url = stream.get("url") or ""
        assert url == "wss://bot.example/ws/twilio"
        handshake = {**PUBLIC, "x-twilio-signature": sign(url, {})}
        with connect(launcher.websocket_url("/ws/twilio"), additional_headers=handshake) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        for headers in (PUBLIC, {**PUBLIC, "x-twilio-signature": "AAAA"}):
            with pytest.raises(InvalidStatus) as denied:
                connect(launcher.websocket_url("/ws/twilio"), additional_headers=headers)
            assert denied.value.response.status_code in (401, 403)
        assert launcher.http.post("/telephony/twilio", headers={"x-forwarded-host": "[", **unusable}).status_code == 403
        assert "t0ken" not in launcher.log()


def test_a_webhook_that_twilio_gets_is_signed_over_its_address_alone() -> None:
    sign = RequestValidator("t0ken").compute_signature
    path = f"/telephony/twilio?{urlencode(CALL)}"
    good = {**PUBLIC, "x-twilio-signature": sign(f"https://bot.example{path}", {})}
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1", TWILIO_AUTH_TOKEN="t0ken") as launcher:
        stream = document(launcher.http.get(path, headers=good)).find("Connect/Stream")
        assert stream is not None
        numbers = {p.get("name"): p.get("value") for p in stream.findall("Parameter")}
        assert numbers == {"from_number": CALL["From"], "to_number": CALL["To"]}
        assert launcher.http.get(f"{path}&more=1", headers=good).status_code == 403


def test_a_public_url_overrides_the_headers() -> None:
    sign = RequestValidator("t0ken").compute_signature
    variables: dict[str, Any] = {
        "TWILIO_AUTH_TOKEN": "t0ken",
        "PIPECAT_PUBLIC_URL": "https://aws:8443/",
        "PIPECAT_INSECURE": "1",
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        signature = sign("https://aws:8443/telephony/twilio", {})
        response = document(launcher.http.post("/telephony/twilio", headers={"x-twilio-signature": signature}))
        stream = response.find("Connect/Stream")
        assert stream is not None
        assert stream.get("url") == "wss://aws:8443/ws/twilio"


@pytest.mark.needs_newest_packages
def test_plivo_and_telnyx_must_sign_once_their_secret_is_set() -> None:
    private = Ed25519PrivateKey.generate()
    public = base64.b64encode(private.public_key().public_bytes_raw()).decode()
    variables: dict[str, Any] = {
        "PLIVO_AUTH_TOKEN": "tok3n",
        "TELNYX_PUBLIC_KEY": public,
        "PIPECAT_INSECURE": "1",
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        assert launcher.http.post("/telephony/plivo").status_code == 401
        plivo = {
            "x-forwarded-host": "bot.example:8443",
            "x-forwarded-proto": "https",
            "x-plivo-signature-v3": "jdYKhv3LvuEjml4rKEpIe6Nf8YvqC4VIrhrkw8ReknA=",
            "x-plivo-signature-v3-nonce": "12345",
        }
        document(launcher.http.get("/telephony/plivo", headers=plivo))
        assert launcher.http.post("/telephony/telnyx").status_code == 401
        now = str(int(time.time()))
        body = b"CallSid=1&ConnectionId=2"
        telnyx = {
            "content-type": "application/x-www-form-urlencoded",
            "telnyx-timestamp": now,
            "telnyx-signature-ed25519": base64.b64encode(private.sign(f"{now}|".encode() + body)).decode(),
        }
        document(launcher.http.post("/", content=body, headers=telnyx))
        refused = launcher.http.post("/", content=body + b"&x=y", headers=telnyx)
        assert (refused.status_code, refused.json()["reason"]) == (403, "signature_wrong")


def test_where_streams_need_tokens_only_a_signed_webhook_gets_one() -> None:
    sign = RequestValidator("t0ken").compute_signature
    variables: dict[str, Any] = {
        "TWILIO_AUTH_TOKEN": "t0ken",
        "PIPECAT_WEBSOCKET_AUTH": "token",
        "PIPECAT_INSECURE": "1",
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        for provider in ("telnyx", "plivo", "exotel"):
            assert launcher.http.post(f"/telephony/{provider}").status_code == 401
        good = {**PUBLIC, "x-twilio-signature": sign("https://bot.example/telephony/twilio", {})}
        stream = document(launcher.http.post("/telephony/twilio", headers=good)).find("Connect/Stream")
        assert stream is not None
        path = (stream.get("url") or "").removeprefix("wss://bot.example")
        with connect(launcher.websocket_url(path)) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        with pytest.raises(InvalidStatus):
            connect(launcher.websocket_url(path))  # it was used
        signed = {**PUBLIC, "x-twilio-signature": sign("wss://bot.example/ws/twilio", {})}
        with connect(launcher.websocket_url("/ws/twilio"), additional_headers=signed) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


@pytest.fixture(scope="module")
def behind_a_token() -> Iterator[Launcher]:
    variables: dict[str, Any] = {"PIPECAT_POD_TOKEN": "p0d", "TWILIO_AUTH_TOKEN": "t0ken"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        yield launcher


@pytest.mark.parametrize("path", ["/ws/twilio", "/ws/plivo", "/ws/generic", "/ws", "/ws-client"])
def test_behind_a_pod_token_a_stream_that_proves_nothing_is_refused(behind_a_token: Launcher, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(behind_a_token.websocket_url(path))
    assert refused.value.response.status_code == 401


@pytest.mark.parametrize("path", ["/ws/x", "/ws-client/x", "/ws/twilio/x", "/ws/plivo/x", "/ws/generic/x"])
def test_a_token_in_the_path_leads_nowhere_where_no_token_is_needed(
    gateway: Launcher, behind_a_token: Launcher, path: str
) -> None:
    for launcher in (gateway, behind_a_token):
        with pytest.raises(InvalidStatus) as refused:
            connect(launcher.websocket_url(path))
        assert refused.value.response.status_code in (403, 404)
        assert sessions(launcher) == []


def test_with_a_pod_token_streams_use_the_gateways_own_paths() -> None:
    variables: dict[str, Any] = {"PIPECAT_POD_TOKEN": "p0d", "PIPECAT_WEBSOCKET_AUTH": "token"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        phone = launcher.http.post("/start", json={"transport": "plivo"}).json()
        assert phone["wsUrl"].endswith("/ws/plivo")
        with connect(f"{phone['wsUrl']}/{phone['token']}") as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


@pytest.mark.parametrize("provider", ["twilio", "telnyx", "plivo", "exotel", "generic"])
def test_a_stream_at_the_providers_path_is_as_at_ws(gateway: Launcher, provider: str) -> None:
    with connect(gateway.websocket_url(f"/ws/{provider}?serviceHost=my-agent.my-org")) as client:
        first = json.dumps({"event": "start"})
        client.send(first)
        assert client.recv(timeout=10) == first
        (session,) = sessions(gateway)
        assert session["transport"] == "websocket"
    until(lambda: not sessions(gateway), "the session's end")


def test_an_unusable_secret_is_reported_at_the_start() -> None:
    from tests.support.launchers import BOTS, run

    variables = {"TELNYX_PUBLIC_KEY": "c2hvcnQ=", "PINLESS_HMAC_SECRET": "no base64!", "DAILY_API_URL": "daily"}
    ended = run(cwd=BOTS / "gateway", PIPECAT_GATEWAY="1", **variables)
    assert ended.returncode == 24
    assert [line.split(": ")[:3] for line in ended.stderr.splitlines()] == [
        ["pipecat-base", "settings_invalid", name] for name in variables
    ]
    assert "c2hvcnQ" not in ended.stderr


def test_every_phone_provider_has_an_entry() -> None:
    assert tuple(PROVIDERS) == PHONES
