"""No log line contains caller data: numbers, parameters, bodies, messages."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.browser_peer import Browser
from tests.support.callers import encode
from tests.support.launchers import Launcher
from tests.support.phones import Provider, exotel, plivo, telnyx, twilio

NUMBERS = ("+4930111222333", "+4930111222444")
SECRETS = ("custom-SECRET-7f3a", "body-SECRET-91cc", "frame-SECRET-55aa", "message-SECRET-0b0b")
PLANTED = (*NUMBERS, *SECRETS)


def with_data(provider: Provider) -> list[dict[str, Any]]:
    """The provider's first messages, with the caller's numbers and parameters."""
    opening: list[dict[str, Any]] = json.loads(json.dumps(provider.opening))
    start = opening[-1]["start"]
    custom = {"secret": SECRETS[0], "from": NUMBERS[0]}
    start |= {"from": NUMBERS[0], "to": NUMBERS[1], "customParameters": custom, "custom_parameters": custom}
    opening[-1]["extra_headers"] = json.dumps({"X-PH-secret": SECRETS[0], "X-PH-from": NUMBERS[0]})
    return opening


def ring(launcher: Launcher, provider: Provider) -> None:
    url = f"{launcher.websocket_url()}?body={encode({'secret': SECRETS[1], 'number': NUMBERS[0]})}"
    with connect(url, proxy=None) as websocket:
        for message in with_data(provider):
            websocket.send(json.dumps(message))
        launcher.wait_for_log("Session started")
        websocket.send(f"no JSON: {SECRETS[2]}")
        websocket.send(json.dumps({"event": "dtmf", "dtmf": {"digit": SECRETS[2]}, "streamSid": "MZ1"}))
        websocket.send(json.dumps({"event": SECRETS[2]}))
        time.sleep(1)
    launcher.wait_for_log("Session ended")


def texts(launcher: Launcher, folder: Path) -> str:
    files = [path.read_text(errors="replace") for path in folder.iterdir() if path.is_file()]
    return launcher.log() + "".join(files)


@pytest.mark.parametrize("provider", [twilio(), telnyx(), plivo(), exotel()], ids=lambda provider: provider.name)
def test_no_line_contains_a_phone_callers_data(tmp_path: Path, provider: Provider) -> None:
    options = {"PCC_LOG_DIR": str(tmp_path), "OWN_SINK": str(tmp_path / "own.log")}
    with Launcher("speaks", **options) as launcher:  # type: ignore[arg-type]
        ring(launcher, provider)
        log = texts(launcher, tmp_path)
    assert f"Parsed - Type: {provider.name}, Data: <...>" in log
    assert [planted for planted in PLANTED if planted in log] == []


def test_caller_data_is_logged_when_enabled() -> None:
    with Launcher("speaks", PIPECAT_LOG_CALLER_DATA="true") as launcher:
        ring(launcher, telnyx())
        assert NUMBERS[0] in launcher.log()


def test_no_line_contains_a_browsers_messages(tmp_path: Path) -> None:
    async def visit(launcher: Launcher) -> None:
        data = {"secret": SECRETS[1], "number": NUMBERS[0]}
        browser = Browser(f"http://127.0.0.1:{launcher.port}")
        try:
            assert (await browser.offer(request_data=data)).status_code == 200
            async with asyncio.timeout(20):
                while browser.channel.readyState != "open":
                    await asyncio.sleep(0.02)
            for message in (
                json.dumps({"label": "rtvi-ai", "type": "client-message", "id": "1", "data": {"t": SECRETS[3]}}),
                json.dumps({"type": SECRETS[3], "number": NUMBERS[1]}),
                f"no JSON {SECRETS[3]}",
            ):
                browser.channel.send(message)
            await asyncio.sleep(1)
        finally:
            await browser.close()

    with Launcher("speaks", PCC_LOG_DIR=str(tmp_path)) as launcher:
        asyncio.run(visit(launcher))
        launcher.wait_for_log("Session ended")
        log = texts(launcher, tmp_path)
    assert [planted for planted in PLANTED if planted in log] == []
