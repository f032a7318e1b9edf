"""``pipecat-base call`` and the bots that people write: phones without an account, keys, bodies, bots that talk."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.bot.dev_credentials import STAND_IN
from pipecat_base.cli.call import audio
from tests.support.launchers import PIPECAT, ROOT, Launcher, run, until
from tests.support.tones import tone

KEY = "pk_of_the_call_tests"
NUMBERS = ["--from", "+15550001", "--to", "+15550002"]
TALKS = """
import asyncio, base64, json, math, struct
from pipecat_base.cli.call.audio import decode_mulaw, encode_mulaw

VOICE = base64.b64encode(encode_mulaw([round(9000 * math.sin(n * 0.6)) for n in range(8000 * 2)])).decode()


async def bot(args):
    '''Answers 0.4 s after the caller has fallen silent with 2 s of speech, sent at once, and can be interrupted.'''
    quiet, spoken, speaking = 0, 0, 0
    async for raw in args.websocket.iter_text():
        message = json.loads(raw)
        if message["event"] != "media":
            continue
        loud = max(map(abs, decode_mulaw(base64.b64decode(message["media"]["payload"])))) > 1000
        speaking -= speaking > 0
        spoken, quiet = (spoken + 1, 0) if loud else (spoken, quiet + 1)
        if loud and speaking and HEEDS:
            await args.websocket.send_text(json.dumps({"event": "clear"}))
            speaking = 0
        if spoken and quiet == 20:
            spoken, speaking = 0, 100
            await args.websocket.send_text(json.dumps({"event": "media", "media": {"payload": VOICE}}))
"""


@pytest.fixture(scope="module")
def phone() -> Iterator[Launcher]:
    with Launcher("phone", command=("dev",)) as launcher:
        yield launcher


def place_call(launcher: Launcher, folder: Path, *arguments: str, seconds: float = 1.5) -> Any:
    """One call of a voice; what ``--json`` says of it."""
    speech, rate = audio.read_wav(str(ROOT / "examples" / "speech.wav"))
    audio.write_wav(str(folder / "speech.wav"), speech[: int(seconds * rate)], rate)
    result = run("call", "speech.wav", "--port", str(launcher.port), "--json", *arguments, cwd=folder)
    assert result.stdout, result.stderr
    (call,) = json.loads(result.stdout)["calls"]
    return call


def given(launcher: Launcher) -> Any:
    """What the last session of the phone bot was given."""
    return json.loads([line for line in launcher.log().splitlines() if line.startswith('{"body"')][-1])


@pytest.mark.skipif(PIPECAT < (1, 14), reason="the arguments have call_data from pipecat-ai 1.14 on")
@pytest.mark.parametrize(
    ("provider", "numbers", "told"),
    [
        (
            "twilio",
            NUMBERS,
            {
                "body": {},
                "from": "+15550001",
                "to": "+15550002",
                "parameters": {"name": "Ada", "from_number": "+15550001", "to_number": "+15550002"},
            },
        ),
        ("telnyx", NUMBERS, {"body": {"name": "Ada"}, "from": "+15550001", "to": "+15550002", "parameters": {}}),
        ("plivo", [], {"body": {"name": "Ada"}, "from": None, "to": None, "parameters": {}}),
        ("exotel", NUMBERS, {"body": {"name": "Ada"}, "from": "+15550001", "to": "+15550002", "parameters": {}}),
    ],
)
def test_a_phone_bot_as_people_write_it_is_called_in_dev_as_each_provider_would(
    phone: Launcher, tmp_path: Path, provider: str, numbers: list[str], told: Any
) -> None:
    call = place_call(phone, tmp_path, "--provider", provider, *numbers, "--body", '{"name": "Ada"}')
    # Plivo says "start" without "connected" before it: pipecat, which reads two messages, takes the first frame.
    assert (call["kind"], call["frames_lost"], call["ended_by_bot"]) == ("echo", int(provider == "plivo"), None)
    assert given(phone) == told


def test_stand_ins_for_credentials_are_not_the_gateways(phone: Launcher) -> None:
    answer = phone.http.post("/telephony/twilio", data={"CallSid": "CA1"})
    assert (answer.status_code, "<Stream" in answer.text) == (200, True)


@pytest.mark.parametrize(
    ("provider", "variables"),
    [
        ("telnyx", "Telnyx is not asked to hang up: TELNYX_API_KEY is not set"),
        ("plivo", "Plivo is not asked to hang up: PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN are not set"),
    ],
)
def test_a_bot_that_hangs_up_with_stand_ins_asks_nobody(
    phone: Launcher, tmp_path: Path, provider: str, variables: str
) -> None:
    call = place_call(phone, tmp_path, "--provider", provider, "--body", '{"hang_up": true}', seconds=5)
    phone.wait_for_log(variables)
    assert call["ended_by_bot"].startswith("1000")
    assert not call["cut_off"]
    assert not re.search("Failed to|terminated", phone.log())


def test_credentials_that_are_set_are_left_alone_and_empty_ones_are_not(tmp_path: Path) -> None:
    names = ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TELNYX_API_KEY")
    (tmp_path / "bot.py").write_text(
        f"import os\n\n\nasync def bot(args):\n    print([os.environ.get(name) for name in {names}], flush=True)\n"
    )
    (tmp_path / ".env").write_text("TWILIO_AUTH_TOKEN=\n")
    with Launcher(tmp_path, command=("dev", "--reload"), TWILIO_ACCOUNT_SID="AC1") as launcher:
        launcher.http.post("/bot", json={})
        printed = re.compile(rf"\['AC1', '({STAND_IN}\w{{32}})', '({STAND_IN}\w{{32}})'\]")
        told = until(lambda: printed.search(launcher.log()), "the bot's line")
        assert told[1] != told[2]
    with Launcher(tmp_path, TWILIO_ACCOUNT_SID="AC1") as launcher:
        launcher.http.post("/bot", json={})
        launcher.wait_for_log(str(["AC1", None, None]))


def test_outside_dev_the_log_says_which_variables_pipecat_wants(tmp_path: Path) -> None:
    with Launcher("phone") as launcher:
        call = place_call(launcher, tmp_path)
        assert call["cut_off"]
        assert call["ended_by_bot"] == "1011 the bot failed; its log says why"
        launcher.wait_for_log("wants TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN for it; to try the bot without, use")


@pytest.mark.parametrize("webrtc", [[], ["--webrtc"]])
def test_a_key_starts_a_session_at_the_gateway_and_is_never_shown(tmp_path: Path, webrtc: list[str]) -> None:
    variables: dict[str, Any] = {
        "PIPECAT_PUBLIC_API_KEYS": KEY,
        "PIPECAT_WEBSOCKET_AUTH": "token",
        "PIPECAT_ICE_SERVERS": "[]",
    }
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 1.0, 16000), 16000)
    with Launcher("phone", command=("dev",), **variables) as launcher:
        call = place_call(launcher, tmp_path, *webrtc, "--key", KEY, "--body", '{"name": "Ada"}')
        assert call["bot_speech_s"] > 0.5
        assert call["kind"] == "echo" or webrtc  # a busy machine tears one over WebRTC apart
        told = given(launcher)
        assert (told["body"] if webrtc else told["parameters"]) == {"name": "Ada"}
        port = ("--port", str(launcher.port))
        without = run("call", "tone.wav", *webrtc, *port, cwd=tmp_path)
        wrong = run("call", "tone.wav", *webrtc, *port, "--key", f"{KEY}_2", cwd=tmp_path)
    assert (without.returncode, wrong.returncode) == (1, 1)
    assert re.search(r"refused the call: 40[13] .* \(call with --key KEY\)\n$", without.stderr)
    assert re.search(r"/start refused the call: 401 PCC-1002: .* \(not with this --key\)\n$", wrong.stderr)
    assert KEY not in without.stdout + wrong.stdout + wrong.stderr


def test_a_webrtc_call_whose_bot_fails_says_so(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio\n\n\nasync def bot(args):\n    await asyncio.sleep(0.5)\n    raise ValueError\n"
    )
    with Launcher(tmp_path, command=("dev",), PIPECAT_ICE_SERVERS="[]") as launcher:
        call = place_call(launcher, tmp_path, "--webrtc", seconds=5)
    assert (call["cut_off"], call["ended_by_bot"]) == (True, "the bot failed; its log says why")


def test_the_port_is_that_of_the_environment(echo: Launcher, tmp_path: Path) -> None:
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 0.5, 16000), 16000)
    result = run("call", "tone.wav", cwd=tmp_path, PORT=str(echo.port))
    assert result.returncode == 0, result.stderr
    assert f"Calling ws://127.0.0.1:{echo.port}/ws" in result.stdout
    wrong = run("call", "tone.wav", cwd=tmp_path, PORT="http")
    assert wrong.stderr == 'pipecat-base: settings_invalid: PORT: "http" is not a port (1–65535)\n'
    wrong = run("call", "tone.wav", "--port", "0", cwd=tmp_path)
    assert wrong.stderr == 'pipecat-base: settings_invalid: --port: "0" is not a port (1–65535)\n'
    (tmp_path / ".env").write_text("\nPORT=http\n")
    wrong = run("call", "tone.wav", cwd=tmp_path, PORT=None)
    assert wrong.stderr == 'pipecat-base: settings_invalid: .env:2: PORT: "http" is not a port (1–65535)\n'


SCENE = """
[[say]]
wav = "tone.wav"
at = 0.3
[[say]]
wav = "tone.wav"
answered = 0.3
[[say]]
wav = "tone.wav"
interrupt = 0.6
"""


@pytest.mark.parametrize("heeds", [True, False])
def test_a_bot_that_talks_is_measured_by_its_answers_and_interruptions(tmp_path: Path, heeds: bool) -> None:
    (tmp_path / "bot.py").write_text(TALKS.replace("HEEDS", str(heeds)))
    audio.write_wav(str(tmp_path / "tone.wav"), tone(500, 0.8))
    (tmp_path / "scene.toml").write_text(SCENE)
    with Launcher(tmp_path) as launcher:
        arguments = ("--port", str(launcher.port), "--tail", "3", "--plot", "call.svg")
        result = run("call", "--scenario", "scene.toml", "--json", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (call,) = json.loads(result.stdout)["calls"]
    assert (call["kind"], call["frames_lost"], call["unsaid"]) == ("talk", None, [])
    assert all(answer["ms"] > 300 for answer in call["answers"][:2])
    (interruption,) = call["interruptions"]
    assert interruption["heeded"] is heeds
    assert call["answer_p50_ms"] <= call["answer_p95_ms"]
    assert (call["bot_speech_s"] < 5.5) is heeds  # of three times 2 s
    assert call["bot_level_dbfs"] == pytest.approx(-14.2, abs=0.5)
    assert "interrupted" in (tmp_path / "call.svg").read_text()
    assert audio.read_wav(str(tmp_path / "scene.reply.wav"))[1] == 8000


MARKS = """
import base64, json, time
from pipecat_base.cli.call.audio import encode_mulaw

SECOND = base64.b64encode(encode_mulaw([9000, -9000] * 4000)).decode()


async def bot(args):
    async def say(*messages):
        for message in messages:
            await args.websocket.send_text(json.dumps(message))

    async def reached():
        began = time.monotonic()
        async for raw in args.websocket.iter_text():
            message = json.loads(raw)
            if message["event"] in ("mark", "playedStream", "clearedAudio"):
                print(message["event"], "played" if time.monotonic() - began > 0.9 else "cleared", flush=True)
                return

    audio, mark, clear = MESSAGES
    await say(audio, mark)
    await reached()
    await say(audio, mark, clear)
    await reached()
"""


@pytest.mark.parametrize(
    ("provider", "messages", "played", "cleared"),
    [
        (
            "twilio",
            '{"event": "media", "media": M}, {"event": "mark", "mark": {"name": "m1"}}, {"event": "clear"}',
            "mark",
            "mark",
        ),
        (
            "plivo",
            '{"event": "playAudio", "media": M}, {"event": "checkpoint", "name": "m1"}, {"event": "clearAudio"}',
            "playedStream",
            "clearedAudio",
        ),
    ],
)
def test_a_mark_comes_back_when_what_is_before_it_has_been_played_or_cleared(
    tmp_path: Path, provider: str, messages: str, played: str, cleared: str
) -> None:
    (tmp_path / "bot.py").write_text(MARKS.replace("MESSAGES", messages.replace("M}", '{"payload": SECOND}}')))
    with Launcher(tmp_path) as launcher:
        call = place_call(launcher, tmp_path, "--provider", provider, "--tail", "10")
        launcher.wait_for_log(f"{played} played")
        launcher.wait_for_log(f"{cleared} cleared")
    assert call["ended_by_bot"] == "1000 the bot returned"


@pytest.mark.skipif(PIPECAT < (1, 14), reason="the cascade bot is written for pipecat-ai 1.14")
def test_a_pipeline_of_pipecats_with_turns_is_no_echo_and_its_answer_is_timed(tmp_path: Path) -> None:
    speech, rate = audio.read_wav(str(ROOT / "examples" / "speech.wav"))
    audio.write_wav(str(tmp_path / "speech.wav"), speech[: 4 * rate], rate)
    with Launcher(ROOT / "benchmarks" / "bots" / "cascade") as launcher:
        result = run("call", "speech.wav", "--port", str(launcher.port), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    says = (
        r"call 1: the bot talks: connected after \d+ ms, first audio after \d+ ms, first word after \d+ ms, answered 1"
    )
    assert re.search(says, result.stdout), result.stdout
    assert "lost" not in result.stdout
