"""What ``pipecat-base call`` makes of two tracks: an echo or a conversation, and its figures."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from pipecat_base.cli.call import audio, echo, plot, scenario, speech
from pipecat_base.cli.call.address import Address, shown
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.providers import PROVIDERS
from pipecat_base.cli.call.scenario import Speaker, Tail
from pipecat_base.cli.call.track import Track
from tests.support.launchers import ROOT
from tests.support.tones import tone

RATE = 8000
FRAME = 160


def speak(seconds: float) -> list[int]:
    samples, rate = audio.read_wav(str(ROOT / "examples" / "speech.wav"))
    return list(audio.resample(samples[: int(seconds * rate)], rate, RATE))


def track(samples: list[int], at: float = 0.0, rate: int = RATE) -> Track:
    """Of samples that come in real time."""
    found = Track(rate)
    for start in range(0, len(samples), rate // 50):
        found.add(samples[start : start + rate // 50], at + start / rate)
    return found


def silence(seconds: float) -> list[int]:
    return [0] * int(seconds * RATE)


def spans(of: Track) -> list[tuple[float, float]]:
    """From when to when it speaks."""
    return [(utterance.start, utterance.end) for utterance in of.utterances]


def conversation(caller: list[tuple[float, float]], bot: list[tuple[float, float]]) -> speech.Conversation:
    """Of what each says from when to when."""
    tracks = []
    for utterances in (caller, bot):
        found = Track(RATE)
        for start, end in utterances:
            found.add(tone(300, end - start), start)
        tracks.append(found)
    return speech.measure(*tracks)


def test_an_echo_is_found_with_its_delay_and_nothing_is_lost_that_is_under_way() -> None:
    said = speak(4)
    found = echo.find(track(said), track(said[: -10 * FRAME], at=0.28))
    assert found is not None
    assert found.delay == pytest.approx(0.28, abs=0.03)
    assert found.lost == 0


@pytest.mark.parametrize("lost", [1, 7, 40])
def test_frames_that_an_echo_lacks_in_between_are_lost(lost: int) -> None:
    said = speak(4)
    gone = said[: 60 * FRAME] + said[(60 + lost) * FRAME :]
    found = echo.find(track(said), track(gone, at=0.1))
    assert found is not None
    assert found.lost == lost


def test_an_echo_is_one_at_another_rate_and_level_and_with_noise() -> None:
    said = speak(3)
    noise = random.Random(1)
    quiet = [sample // 3 + noise.randint(-300, 300) for sample in said]
    assert echo.find(track(said), track(audio.resample(quiet, RATE, 48000).tolist(), 0.2, 48000)) is not None


def test_a_tone_comes_back_as_an_echo_and_another_tone_is_none() -> None:
    said = tone(500, 1.5) + silence(0.5)
    assert echo.find(track(said), track(said, at=0.05)) is not None
    assert echo.find(track(said), track(tone(620, 1.5) + silence(0.5), at=0.05)) is None


def test_other_speech_is_no_echo() -> None:
    said = speak(4)
    assert echo.find(track(said), track(said[::-1], at=0.1)) is None
    assert echo.find(track(said), track(speak(8)[4 * RATE :], at=0.1)) is None
    assert echo.find(track(said), Track(RATE)) is None


def test_answers_are_timed_from_the_end_of_the_callers_speech() -> None:
    talk = conversation([(1, 2), (4, 5), (8, 9)], [(0.2, 0.6), (2.6, 3.4), (5.9, 7)])
    assert talk.first_speech == pytest.approx(0.2)
    assert [answer.latency for answer in talk.answers] == pytest.approx([0.6, 0.9], abs=0.03)
    assert talk.unanswered == 1
    assert talk.interruptions == ()
    assert talk.spoken == pytest.approx(0.4 + 0.8 + 1.1, abs=0.05)
    assert talk.level == pytest.approx(-11.7, abs=0.2)  # a sine of 12000 of 32768


def test_a_bot_that_falls_silent_heeds_an_interruption_and_one_that_goes_on_does_not() -> None:
    heeded = conversation([(2, 3)], [(1, 2.3)])
    assert [i.stopped for i in heeded.interruptions] == [pytest.approx(0.3, abs=0.03)]
    assert heeded.unanswered == 1
    (deaf,) = conversation([(2, 3)], [(1, 5)]).interruptions
    assert (deaf.at, deaf.stopped) == (2, None)


def test_pauses_of_less_than_half_a_second_do_not_end_an_utterance() -> None:
    found = track(tone(300, 1) + silence(0.4) + tone(300, 1) + silence(0.7) + tone(300, 0.5))
    assert spans(found) == [pytest.approx((0, 2.4)), pytest.approx((3.1, 3.6))]


def test_what_comes_faster_than_it_is_played_is_queued_and_cleared() -> None:
    heard = Track(RATE)
    heard.add(tone(300, 3), 1.0)
    assert spans(heard) == [pytest.approx((1, 4))]
    assert heard.last(0.5) is None
    heard.clear(2.0)
    assert spans(heard) == [(1, 2)]
    assert heard.end == 2
    assert len(heard.samples) == RATE
    heard.add(tone(300, 1), 5.0)
    assert spans(heard)[-1] == pytest.approx((5, 6))


def test_percentiles_are_values_that_were_measured() -> None:
    assert speech.percentile([3, 1, 2], 50) == 2
    assert speech.percentile([3, 1, 2], 95) == 3
    assert speech.percentile([7], 95) == 7
    assert speech.percentile([1, 2], 50) == 1
    assert speech.percentile(range(1, 21), 95) == 19


def scene(tmp_path: Path, text: str) -> Path:
    audio.write_wav(str(tmp_path / "a.wav"), tone(300, 0.4))
    audio.write_wav(str(tmp_path / "b.wav"), tone(300, 0.4, 16000), 16000)
    path = tmp_path / "scene.toml"
    path.write_text(text)
    return path


TURNS = """
[[say]]
wav = "a.wav"
at = 0.2
[[say]]
wav = "b.wav"
answered = 0.6
[[say]]
wav = "a.wav"
interrupt = 0.5
"""


def play(speaker: Speaker, call: CallFigures, bot: list[tuple[float, float]], *, until: float = 60) -> None:
    """With a bot that speaks from when to when, on the call's clock."""
    for start, end in bot:
        call.heard.add(tone(900, end - start), start)
    while not speaker.finished and call.sent < 50 * until:
        speaker.next()


def test_a_scenario_waits_for_the_bot_and_speaks_into_its_answer(tmp_path: Path) -> None:
    script = scenario.from_file(str(scene(tmp_path, TURNS)))
    call = CallFigures()
    play(Speaker(script, call, Tail(1)), call, [(1.0, 2.0), (4.0, 7.0)])
    starts = [utterance.start for utterance in call.said.utterances]
    assert starts == pytest.approx([0.2, 2.6, 4.5], abs=0.05)
    assert call.sent * 0.02 == pytest.approx(4.5 + 0.4 + 1, abs=0.25)
    assert call.unsaid == []


def test_a_scenario_ends_when_the_bot_does_not_do_what_a_turn_waits_for(tmp_path: Path) -> None:
    call = CallFigures()
    play(Speaker(scenario.from_file(str(scene(tmp_path, TURNS))), call, Tail(1)), call, [])
    assert call.unsaid == ["b.wav", "a.wav"]
    assert call.sent * 0.02 == pytest.approx(0.6 + scenario.TURN_TIMEOUT_SECONDS, abs=0.3)


def test_a_scenario_goes_on_after_a_bot_that_speaks_for_long(tmp_path: Path) -> None:
    call = CallFigures()
    play(Speaker(scenario.from_file(str(scene(tmp_path, TURNS))), call, Tail(1)), call, [(2.0, 30.0), (32.0, 35.0)])
    assert call.unsaid == []
    call = CallFigures()
    play(Speaker(scenario.from_file(str(scene(tmp_path, TURNS))), call, Tail(1)), call, [(2.0, 300.0)], until=200)
    assert call.unsaid == ["b.wav", "a.wav"]


@pytest.mark.parametrize(
    ("bot", "seconds"),
    [
        ([(1.0, 2.0)], 2.0 + scenario.ANSWER_PAUSE_SECONDS),
        ([(1.0, 6.0)], 6.0 + scenario.ANSWER_PAUSE_SECONDS),
        ([], 0.4 + scenario.ANSWER_TIMEOUT_SECONDS),
        ([(0.0, 0.2)], 0.4 + scenario.ANSWER_TIMEOUT_SECONDS),
    ],
)
def test_the_caller_hangs_up_after_the_answer(tmp_path: Path, bot: list[tuple[float, float]], seconds: float) -> None:
    scene(tmp_path, "")
    call = CallFigures()
    play(Speaker(scenario.from_wav(str(tmp_path / "a.wav")), call, Tail(None)), call, bot)
    assert call.sent * 0.02 == pytest.approx(seconds, abs=0.25)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[say", "is not TOML"),
        ("", "at least one"),
        ("say = 5", "at least one"),
        ("listen = 5\n" + TURNS, "nothing but"),
        ("[[say]]\nat = 1", 'number 1 has no wav = "FILE.wav"'),
        ('[[say]]\nwav = "a.wav"', "exactly one of at, answered, interrupt"),
        ('[[say]]\nwav = "a.wav"\nat = 1\ninterrupt = 2', "exactly one of"),
        ('[[say]]\nwav = "a.wav"\nlater = 1', "exactly one of"),
        ('[[say]]\nwav = "a.wav"\nat = true', "at is not a number of seconds"),
        ('[[say]]\nwav = "a.wav"\nat = -1', "at is not a number of seconds"),
        ('[[say]]\nwav = "c.wav"\nat = 1', "No such file"),
    ],
)
def test_a_scenario_that_is_wrong_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    path = scene(tmp_path, text)
    with pytest.raises((CallError, OSError)) as caught:
        scenario.from_file(str(path))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_has_both_sides_and_what_was_measured() -> None:
    call = CallFigures()
    call.said.add(tone(300, 1), 0.5)
    call.said.add(tone(300, 1), 4.0)
    call.heard.add(tone(900, 2.0), 2.25)
    call.heard.add(tone(900, 1), 4.3)
    root = ElementTree.fromstring(plot.draw(call, "a & b"))
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "caller", "bot", "750 ms", "0 s", "5 s"} <= set(texts)
    assert any(text and text.startswith("interrupted, silent after") for text in texts)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("ws://h:1/ws", "ws://h:1/ws"),
        ("ws://h:1/ws?token=s3cret", "ws://h:1/ws"),
        ("wss://h/ws/s3cret", "wss://h/ws/..."),
        ("wss://h/ws/twilio/s3cret", "wss://h/ws/twilio/..."),
        ("wss://h/ws/twilio", "wss://h/ws/twilio"),
        ("https://u:s3cret@h/api/offer", "https://h/api/offer"),
        ("ws://[s3cret", "an address that cannot be read"),
    ],
)
def test_an_address_is_shown_without_what_is_secret(url: str, seen: str) -> None:
    assert shown(url) == seen


@pytest.mark.parametrize(
    ("url", "key", "webrtc", "called", "starts"),
    [
        (None, None, False, "ws://127.0.0.1:9000/ws", False),
        (None, None, True, "http://127.0.0.1:9000/api/offer", False),
        (None, "pk", False, "http://127.0.0.1:9000", True),
        (None, "pk", True, "http://127.0.0.1:9000", True),
        ("https://bot.example", None, False, "https://bot.example", True),
        ("https://bot.example/", None, True, "https://bot.example", True),
        ("https://bot.example/api/offer", None, True, "https://bot.example/api/offer", False),
        ("https://bot.example/base/api/offer", "pk", True, "https://bot.example/base", True),
        ("wss://bot.example/ws", "pk", False, "https://bot.example", True),
        ("wss://bot.example/ws", None, False, "wss://bot.example/ws", False),
    ],
)
def test_a_key_or_a_gateways_address_asks_the_gateway(
    url: str | None, key: str | None, webrtc: bool, called: str, starts: bool
) -> None:
    address = Address.of(url, 9000, key, webrtc=webrtc)
    assert (address.url, address.starts) == (called, starts)
    assert "pk" not in repr(address)


@pytest.mark.parametrize(
    "raw", ["", "[]", "5", b"\xff", '{"event": "media"}', '{"event": "media", "media": {"payload": 5}}']
)
def test_what_is_no_message_of_a_provider_is_none(raw: str | bytes) -> None:
    assert [kind().parse(raw) for kind in PROVIDERS.values()] == [("other", None)] * 4


def test_each_provider_begins_goes_on_and_ends_in_its_own_way() -> None:
    seen = {}
    for name, kind in PROVIDERS.items():
        provider = kind()
        media = provider.media(np.zeros(FRAME * provider.frames_per_message, np.int16), 3)
        sequence = next(value for key, value in media.items() if key.lower().startswith("sequence"))
        payload = len(base64.b64decode(media["media"]["payload"]))
        events = [message["event"] for message in (*provider.opening(), *provider.closing(4))]
        seen[name] = (events, int(sequence), int(media["media"]["timestamp"]), payload)
    assert seen == {
        "twilio": (["connected", "start", "stop"], 5, 60, 160),
        "telnyx": (["connected", "start", "stop"], 5, 60, 160),
        "plivo": (["start"], 5, 60, 160),
        "exotel": (["connected", "start", "stop"], 5, 300, 1600),
    }
