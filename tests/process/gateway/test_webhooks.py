"""Calls to Daily's numbers and from WhatsApp."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.process.gateway.conftest import sessions
from tests.support.callers import arguments
from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher

CALL = {"From": "+15551234567", "To": "+15559876543", "callId": "call-1", "callDomain": "domain-1"}
PATHS = ["/daily-dialin-webhook", "/v1/public/webhooks/my-org/my-agent/dialin"]


@pytest.mark.parametrize("path", PATHS)
def test_a_call_gets_a_room_for_phones_and_a_bot_that_can_connect_it(
    gateway: Launcher, daily: DailyApi, path: str
) -> None:
    answer = gateway.http.post(path, json={**CALL, "sipHeaders": {"X-Mine": "1"}})
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content.keys() == {"dailyRoom", "dailyToken", "sessionId"}
    room = daily.rooms[content["dailyRoom"].rpartition("/")[2]]
    assert room["sip"]["display_name"] == CALL["From"]
    assert room["sip"]["sip_mode"] == "dial-in"
    given = arguments(gateway, content["sessionId"])["args"]
    assert given["room_url"] == content["dailyRoom"]
    assert given["body"] == {
        "dialin_settings": {
            "call_id": "call-1",
            "call_domain": "domain-1",
            "To": CALL["To"],
            "From": CALL["From"],
            "sip_headers": {"X-Mine": "1"},
        },
        "daily_api_key": daily.key,
        "daily_api_url": daily.url,
    }


def test_a_call_holds_a_slot_while_its_room_is_made_and_without_one_no_room_is_made(daily: DailyApi) -> None:
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    with (
        Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSIONS="1", **variables) as launcher,
        daily.slow() as asked,
        ThreadPoolExecutor() as pool,
    ):
        early = pool.submit(launcher.http.post, PATHS[0], json=CALL)
        assert asked.wait(10)
        assert launcher.http.post("/v1/public/agent/start").status_code == 429
        daily.go_on()
        assert early.result().status_code == 200
        rooms = set(daily.rooms)
        late = launcher.http.post(PATHS[0], json=CALL)
        assert (late.status_code, late.json()["reason"]) == (429, "at_capacity")
        assert set(daily.rooms) == rooms


@pytest.mark.parametrize("content", [{"test": "test"}, {"Test": "test"}, {"test": True}])
def test_dailys_test_of_a_webhook_is_answered_and_starts_nothing(gateway: Launcher, content: dict[str, Any]) -> None:
    answer = gateway.http.post(PATHS[0], json=content)
    assert (answer.status_code, answer.json()) == (200, {"status": "OK"})
    assert sessions(gateway) == []


@pytest.mark.parametrize("missing", list(CALL))
def test_a_call_without_a_required_field_is_400(gateway: Launcher, missing: str) -> None:
    answer = gateway.http.post(PATHS[0], json={k: v for k, v in CALL.items() if k != missing})
    assert (answer.status_code, answer.json()["field"]) == (400, missing)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff"])
def test_rubbish_is_400(gateway: Launcher, content: bytes) -> None:
    assert gateway.http.post(PATHS[0], content=content).status_code == 400


def test_with_a_secret_calls_must_be_signed_and_need_no_key(daily: DailyApi) -> None:
    variables: dict[str, Any] = {
        "DAILY_API_KEY": daily.key,
        "DAILY_API_URL": daily.url,
        "PINLESS_HMAC_SECRET": base64.b64encode(b"s3cr3t").decode(),
        "PIPECAT_PUBLIC_API_KEYS": "pk_one",
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        raw = json.dumps(CALL).encode()
        now = str(int(time.time() * 1000))
        signature = base64.b64encode(hmac.new(b"s3cr3t", f"{now}.".encode() + raw, hashlib.sha256).digest()).decode()
        good = {"x-pinless-timestamp": now, "x-pinless-signature": signature}
        assert launcher.http.post(PATHS[1], content=raw).status_code == 401
        assert (
            launcher.http.post(PATHS[1], content=raw, headers={**good, "x-pinless-timestamp": "1"}).status_code == 403
        )
        assert launcher.http.post(PATHS[1], content=raw + b" ", headers=good).status_code == 403
        assert launcher.http.post(PATHS[1], content=raw, headers=good).status_code == 200


def test_without_daily_a_call_is_refused_with_the_reason() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        answer = launcher.http.post(PATHS[0], json=CALL)
        assert answer.status_code == 501
        assert "DAILY_API_KEY" in answer.json()["message"]


def test_whatsapps_webhook_is_the_pods_own() -> None:
    path = "/v1/public/webhooks/my-org/my-agent/whatsapp"
    variables: dict[str, Any] = {
        "WHATSAPP_TOKEN": "t",
        "WHATSAPP_PHONE_NUMBER_ID": "1",
        "WHATSAPP_APP_SECRET": "s3cr3t",
        "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN": "v",
        "PIPECAT_PUBLIC_API_KEYS": "pk_one",
    }
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        query = "hub.mode=subscribe&hub.verify_token=v&hub.challenge=42"
        assert launcher.http.get(f"{path}?{query}").text == "42"
        raw = json.dumps({"object": "whatsapp_business_account", "entry": []}).encode()
        assert launcher.http.post(path, content=raw).status_code == 401
        signature = hmac.new(b"s3cr3t", raw, hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": f"sha256={signature}"}
        assert launcher.http.post(path, content=raw, headers=headers).json() == {"status": "success"}
