"""Projects as ``pipecat init`` writes them, unchanged and with stand-in keys: each starts, and takes a call.

They run in an environment of their own: SCAFFOLDS_VENV, with requirements/scaffolds.lock.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from pipecat_base.cli.call import audio
from tests.support.launchers import ROOT, Launcher, run
from tests.support.tones import tone

ENVIRONMENT = Path(os.environ.get("SCAFFOLDS_VENV", ROOT / ".venv" / "scaffolds"))
PYTHON = str(ENVIRONMENT / "bin" / "python")
CASCADE = "-m cascade --stt openai_stt --llm openai_llm --tts openai_tts"
REALTIME = "-m realtime --realtime openai_realtime"
WEB = "-b web --client-framework none"
DAILY = f"{WEB} -t daily"
WEBRTC = f"{WEB} -t smallwebrtc"
PHONE = "-b telephony -t"
PROJECTS = {
    "daily": f"{DAILY} {CASCADE}",
    "daily-realtime": f"{DAILY} {REALTIME}",
    "daily-krisp": f"{DAILY} {CASCADE} --enable-krisp",
    "smallwebrtc": f"{WEBRTC} {CASCADE}",
    "smallwebrtc-realtime": f"{WEBRTC} {REALTIME}",
    "smallwebrtc-extras": f"{WEBRTC} {CASCADE} --recording --transcription",
    "smallwebrtc-video": f"{WEBRTC} {CASCADE} --video-input --video-output",
    "websocket": f"{WEB} -t websocket {CASCADE}",
    "twilio": f"{PHONE} twilio {CASCADE}",
    "twilio-realtime": f"{PHONE} twilio {REALTIME}",
    "telnyx": f"{PHONE} telnyx {CASCADE}",
    "plivo": f"{PHONE} plivo {CASCADE}",
    "exotel": f"{PHONE} exotel {CASCADE}",
    "daily_pstn_dialin": f"{PHONE} daily_pstn_dialin {CASCADE}",
    "daily_pstn_dialout": f"{PHONE} daily_pstn_dialout {CASCADE}",
    "twilio_daily_sip_dialin": f"{PHONE} twilio_daily_sip_dialin {CASCADE}",
    "twilio_daily_sip_dialout": f"{PHONE} twilio_daily_sip_dialout {CASCADE}",
}
SECRETS = (
    "OPENAI_API_KEY DAILY_API_KEY TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN TELNYX_API_KEY PLIVO_AUTH_ID PLIVO_AUTH_TOKEN"
)
KEYS = dict.fromkeys(SECRETS.split(), "stand-in")
ROOM = "https://here.invalid/room"
CALLED = {"room_url": ROOM, "token": "a-token"}
BODIES: dict[str, dict[str, Any]] = {
    "daily_pstn_dialin": {
        "dialin_settings": {"call_id": "c", "call_domain": "d", "From": "+15550100", "To": "+15550101"},
        "daily_api_key": "stand-in",
        "daily_api_url": "https://here.invalid/v1",
    },
    "daily_pstn_dialout": {**CALLED, "dialout_settings": {"phone_number": "+15550100"}},
    "twilio_daily_sip_dialin": {**CALLED, "call_sid": "CA0", "sip_uri": "sip:bot@here.invalid"},
    "twilio_daily_sip_dialout": {**CALLED, "dialout_settings": {"sip_uri": "sip:caller@here.invalid"}},
}
"""Of sessions in Daily's rooms: what the project's own server, or the platform, passes on."""


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert Path(PYTHON).exists(), "not installed: make .venv/scaffolds/.installed"
    folder = tmp_path_factory.mktemp("scaffolds")
    calls = [[name, *options.split(), "--no-context-hub"] for name, options in PROJECTS.items()]
    subprocess.run(
        [PYTHON, str(Path(__file__).parent / "generate.py")],
        cwd=folder,
        env={**os.environ, "HOME": str(folder)},
        input=json.dumps(calls),
        text=True,
        check=True,
        timeout=120,
    )
    audio.write_wav(str(folder / "speech.wav"), tone(440, 0.5, 8000), 8000)
    return folder


def served(written: Path, project: str) -> Launcher:
    """With Krisp only where it is mounted: the projects look at ``ENV``, as the development runner sets it."""
    found: dict[str, Any] = {
        **KEYS,
        "ENV": "local",
        "PYTHONPATH": str(ROOT),
        "PIPECAT_ICE_SERVERS": "[]",
        "PIPECAT_LOG_LEVEL": "DEBUG",
    }
    return Launcher(written / project / "server", python=PYTHON, **found)


@pytest.mark.parametrize("project", [name for name in PROJECTS if name.startswith("smallwebrtc")])
def test_a_project_for_webrtc_takes_a_browsers_call(written: Path, project: str) -> None:
    with served(written, project) as launcher:
        run("call", "speech.wav", "--webrtc", "--tail", "0", "--port", str(launcher.port), cwd=written)
        launcher.wait_for_log("Client connected")
        launcher.wait_for_log("Client disconnected")
        launcher.wait_for_log("Session ended: ")
        assert "Session ended: failed" not in launcher.log()


@pytest.mark.parametrize("project", ["twilio", "twilio-realtime", "telnyx", "plivo", "exotel"])
def test_a_project_for_a_phone_provider_takes_its_call(written: Path, project: str) -> None:
    provider = project.partition("-")[0]
    with served(written, project) as launcher:
        options = ["--provider", provider, "--tail", "0", "--port", str(launcher.port)]
        run("call", "speech.wav", *options, cwd=written)
        launcher.wait_for_log("Client connected")
        launcher.wait_for_log("Client disconnected")
        launcher.wait_for_log("Session ended: ")
        assert "Session ended: failed" not in launcher.log()


def test_a_project_for_websockets_takes_a_clients_call(written: Path) -> None:
    with served(written, "websocket") as launcher:
        with connect(launcher.websocket_url("/ws-client")):
            launcher.wait_for_log("Client connected")
        launcher.wait_for_log("Session ended: ")
        assert "Session ended: failed" not in launcher.log()


@pytest.mark.parametrize("project", [name for name in PROJECTS if "daily" in name])
def test_a_project_for_daily_joins_its_room(written: Path, project: str) -> None:
    """The room is not there: joining it is what can be seen."""
    with served(written, project) as launcher:
        headers = {"x-daily-room-url": ROOM, "x-daily-room-token": "a-token"}
        with contextlib.suppress(httpx.ReadTimeout):  # it answers at the session's end
            launcher.http.post("/bot", json=BODIES.get(project, {}), headers=headers, timeout=1)
        launcher.wait_for_log("Joining <...>")  # the room's address is a secret
        assert "Session ended: failed" not in launcher.log()
