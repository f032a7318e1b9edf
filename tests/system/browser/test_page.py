"""The page at ``/``, in a real browser."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import Launcher
from tests.system.browser.browser import KEEP_MICROPHONES, drive, gateway, url

SAID = "Hello <b>bot</b>"
NO_MICROPHONE = """
    navigator.mediaDevices.getUserMedia = async () => { throw new DOMException("none", "NotFoundError"); };
"""


@pytest.fixture(scope="module")
def talk(echo: Launcher, microphone: str) -> dict[str, Any]:
    """A whole call, ended in the list of sessions."""
    return drive("talk", url=url(echo), microphone=microphone, say=SAID)


def test_a_call_is_heard_at_the_right_pitch(talk: dict[str, Any]) -> None:
    assert talk["heard"] == pytest.approx(440, abs=15)


def test_the_transcript_has_what_was_said_and_what_was_typed(talk: dict[str, Any]) -> None:
    assert any(re.search(r"heard \d\.\d s of sound, about \d+ Hz", line) for line in talk["lines"])
    assert [line.splitlines()[-1] for line in talk["lines"]].count(SAID) == 1


def test_what_was_typed_is_answered_in_words_on_the_bots_side(talk: dict[str, Any]) -> None:
    (answer,) = (line.splitlines() for line in talk["lines"] if f"You wrote: {SAID}" in line)
    assert answer[0] == "Bot"


def test_levels_and_the_round_trip_are_shown(talk: dict[str, Any]) -> None:
    assert all(0 < level <= 100 for level in talk["meters"])
    assert talk["roundTrip"].endswith(" ms")


def test_an_event_opens_to_its_json(talk: dict[str, Any]) -> None:
    assert talk["json"]["type"] == "bot-ready"
    assert talk["json"]["data"]["about"]["library"] == "pipecat-ai"


def test_the_session_is_listed_and_its_button_stops_it(talk: dict[str, Any]) -> None:
    assert "this call" in talk["session"]
    assert "running" in talk["session"]
    assert "webrtc" in talk["session"]
    assert talk["state"] == "The session was stopped"
    assert not talk["trouble"]


def test_no_other_origin_is_asked_for_anything(echo: Launcher, talk: dict[str, Any]) -> None:
    assert len(talk["requests"]) > 10
    assert [asked for asked in talk["requests"] if f" {url(echo)}/" not in asked] == []


def test_the_browser_has_nothing_to_complain_about(talk: dict[str, Any]) -> None:
    assert talk["complaints"] == []


def test_on_a_phone_in_the_dark_nothing_is_wider_than_the_screen(echo: Launcher, microphone: str) -> None:
    seen = drive("talk", url=url(echo), microphone=microphone, say="x" * 200, phone=True, scheme="dark")
    assert seen["overflow"] == 0
    assert seen["complaints"] == []


def test_the_keyboard_alone_connects_mutes_and_disconnects(echo: Launcher, microphone: str) -> None:
    seen = drive("keyboard", url=url(echo), microphone=microphone, before=[KEEP_MICROPHONES])
    assert seen["passed"][-1] == {"name": "Connect", "ring": "solid"}
    assert seen["live"] == {"name": "Disconnect", "ring": "solid"}
    assert seen["muted"] == [{"name": "Unmute", "ring": "solid"}, [False]]
    assert seen["after"] == {"name": "Connect", "ring": "solid"}
    assert seen["released"] == ["ended"]


def test_a_key_is_asked_for_and_kept_in_the_tab_alone(microphone: str) -> None:
    with gateway(PIPECAT_PUBLIC_API_KEYS="the-right-key") as launcher:
        launcher.http.post("/start", headers={"authorization": "Bearer the-right-key"})  # somebody else's
        seen = drive("key", url=url(launcher), microphone=microphone, key="the-right-key", phone=True)
        refused = [line.partition(" - ")[2].split(":")[0] for line in launcher.lines("Refused GET ")]
    # At its opening and with the wrong key; then the list, once, that a public key does not open.
    assert refused == ["Refused GET /status"] * 2 + ["Refused GET /sessions"], refused
    assert seen["listed"] == 1
    assert "This server asks for one of the keys" in seen["asked"]
    assert seen["red"] == 0  # nothing is wrong yet
    assert "once you have entered a key" in seen["sessions"]
    assert seen["look"]["overflow"] == 0
    assert "does not accept that API key" in seen["refused"]
    assert seen["kept"].count("the-right-key") == 1
    assert seen["lasting"] == 0
    assert not seen["shown"]


def test_a_full_server_says_what_to_do(microphone: str) -> None:
    with gateway(MAX_SESSIONS="1") as launcher:
        assert launcher.http.post("/start", json={"transport": "webrtc"}).status_code == 200
        seen = drive("refused", url=url(launcher), microphone=microphone)
    assert "at capacity" in seen["words"]
    assert "MAX_SESSIONS" in seen["words"]


def test_a_server_that_shuts_down_says_so(microphone: str) -> None:
    with gateway(DRAIN_NOTICE="60") as launcher:
        launcher.signal(signal.SIGTERM)
        launcher.wait_for_log("Draining")
        seen = drive("refused", url=url(launcher), microphone=microphone)
    assert "shutting down" in seen["words"]


def test_a_microphone_that_is_denied_is_explained_and_starts_no_session(echo: Launcher) -> None:
    seen = drive("refused", url=url(echo), microphone="denied")
    assert "microphone is not allowed" in seen["words"]
    assert not seen["started"]


def test_a_missing_microphone_is_explained_and_starts_no_session(echo: Launcher, microphone: str) -> None:
    seen = drive("refused", url=url(echo), microphone=microphone, before=[NO_MICROPHONE])
    assert "No microphone was found" in seen["words"]
    assert not seen["started"]


def test_http_on_another_machine_is_explained(microphone: str) -> None:
    """To the browser a name is another machine, wherever it leads."""
    with gateway(PIPECAT_INSECURE="1") as launcher:
        seen = drive(
            "refused",
            url=f"http://bot.test:{launcher.port}",
            microphone=microphone,
            flags=["--host-resolver-rules=MAP bot.test 127.0.0.1"],
        )
    assert "https pages and to localhost" in seen["words"]
    assert not seen["started"]


def test_a_body_that_is_not_json_is_not_sent(echo: Launcher, microphone: str) -> None:
    seen = drive("refused", url=url(echo), microphone=microphone, body="{oops")
    assert "not JSON" in seen["words"]
    assert not seen["started"]


@pytest.mark.parametrize(
    ("when", "how", "state"),
    [
        ("connected", "reload", "running"),
        ("offered", "reload", "waiting"),
        ("connected", "disconnect", "running"),
        ("offered", "disconnect", "waiting"),
        ("offered", "fail", "waiting"),
    ],
)
def test_no_session_stays_behind(microphone: str, echo: Launcher, when: str, how: str, state: str) -> None:
    seen = drive("leave", url=url(echo), microphone=microphone, before=[KEEP_MICROPHONES], when=when, how=how)
    assert seen["during"] == [state]
    assert seen["state"] == "Not connected"
    assert set(seen["microphones"]) <= {"ended"}
    assert ("No luck." in seen["words"]) == (how == "fail")


def test_a_network_without_a_way_through_names_the_setting_that_helps(echo: Launcher, microphone: str) -> None:
    seen = drive("lost", url=url(echo), microphone=microphone, how="blocked")
    assert "ICE failed" in seen["words"]
    assert "PIPECAT_ICE_SERVERS" in seen["words"]
    assert seen["state"] == "Not connected"


def test_a_connection_that_is_lost_is_told_from_an_end(microphone: str) -> None:
    with gateway() as launcher:
        seen = drive("lost", url=url(launcher), microphone=microphone, how="killed", pid=launcher.process.pid)
    assert "connection to the bot was lost" in seen["words"]
    assert seen["state"] == "The call was cut off"


BOT = """
from pipecat.frames.frames import AggregatedTextFrame, EndFrame, TranscriptionFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner


async def bot(args):
    both = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
    transport = await create_transport(args, {"webrtc": lambda: both})
    worker = PipelineWorker(Pipeline([transport.input(), transport.output()]))

    @worker.rtvi.event_handler("on_client_ready")
    async def on_client_ready(rtvi):
        await rtvi.send_server_message({"body": args.body, "html": HTML})
        await worker.queue_frames([TranscriptionFrame(HTML, "caller", "now"), EndFrame()])

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await runner.run()
"""
HTML = "<img src=x onerror='window.hacked = true'>"


@pytest.fixture
def rude(tmp_path: Path) -> Path:
    """A bot that says HTML and hangs up."""
    (tmp_path / "bot.py").write_text(f"HTML = {HTML!r}\n{BOT}")
    return tmp_path


def test_what_the_bot_sends_is_text_and_never_html(rude: Path, microphone: str) -> None:
    with gateway(rude) as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone, body='{"name": "Ada"}')
    assert seen["lines"] == [HTML]
    assert not seen["hacked"]
    assert seen["images"] == 0
    (message,) = [event for event in seen["events"] if "server-message" in event]
    assert '{"name":"Ada"}' in message
    assert seen["complaints"] == []


def test_a_bot_that_hangs_up_is_told_from_a_failure(rude: Path, microphone: str) -> None:
    with gateway(rude) as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone)
    assert seen["state"] == "The bot ended the call"
    assert seen["words"] == ""


RAISED = "The bot raised RuntimeError.\n\nThe server's log has the traceback."
"""All that a gateway tells of it."""


@pytest.mark.parametrize(
    ("does", "state", "words"),
    [
        ("raise RuntimeError('no key')", "The bot failed", RAISED),
        ("await connected(args); raise RuntimeError('no key')", "The bot failed", RAISED),
        ("await connected(args)", "The bot ended the call", "bot() has returned"),
        ("await asyncio.sleep(60)", "The session's time was up", ""),
    ],
)
def test_how_the_bot_ended_is_told(tmp_path: Path, microphone: str, does: str, state: str, words: str) -> None:
    (tmp_path / "bot.py").write_text(f"{CONNECTED}\n\nasync def bot(args):\n    {does}\n")
    with gateway(tmp_path, MAX_SESSION_SECONDS="5" if "time" in state else None) as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone)
    assert seen["state"] == state
    assert words in seen["words"]
    assert "no key" not in seen["words"]
    assert bool(words) == bool(seen["words"])


CONNECTED = """
import asyncio


async def connected(args):
    while args.webrtc_connection.pc.connectionState != "connected":
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)
"""


def test_a_bot_that_fails_before_its_client_has_its_answer_is_told(tmp_path: Path, microphone: str) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args):\n    raise RuntimeError('no key')\n")
    with gateway(tmp_path) as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone, before=[SLOW])
    assert seen["state"] == "The bot failed"
    assert "The bot raised RuntimeError" in seen["words"]


SLOW = """
    const set = RTCPeerConnection.prototype.setRemoteDescription;
    RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
        await new Promise((resolve) => setTimeout(resolve, 1500));
        return set.call(this, description);
    };
"""
HELD = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (asked) => {
        if (window.held) throw new DOMException("held", "NotReadableError");
        return open(asked);
    };
    window.peers = [];
    window.RTCPeerConnection = class extends RTCPeerConnection {
        constructor(...given) {
            super(...given);
            window.peers.push(this);
        }
    };
"""


def test_another_microphone_can_be_chosen_and_is_used_again(echo: Launcher, microphone: str) -> None:
    seen = drive("microphones", url=url(echo), microphone=microphone, before=[KEEP_MICROPHONES, HELD])
    chosen = seen["chosen"]
    assert "cannot be read" in seen["refused"]
    assert seen["kept"] == "default"
    assert seen["sent"]
    assert [state for _, state, _ in seen["muted"]] == ["ended", "live"]
    assert seen["muted"][1] == [chosen, "live", False]
    assert seen["unmuted"][1] == [chosen, "live", True]
    assert seen["heard"] == pytest.approx(440, abs=15)
    assert seen["next"] == [[chosen, "live", True]]
    assert seen["shown"] == chosen
    assert seen["other"] == [["default", "live", True]]
    assert seen["complaints"] == []
