"""The page's modules that need no browser."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.browser.browser import modules

Message = dict[str, Any]


def message(kind: str, **data: Any) -> Message:
    return {"label": "rtvi-ai", "type": kind, "id": "1", "data": data}


def transcript(*messages: Message) -> list[Any]:
    """Lines as ``[who, text, whether it may change]``; what is yet to be spoken follows a bar."""
    (lines,) = modules(transcripts=[messages])["transcripts"]
    assert isinstance(lines, list)
    return lines


def test_interim_transcriptions_become_the_final_one() -> None:
    assert transcript(
        message("user-transcription", text="How", final=False),
        message("user-transcription", text="How are", final=False),
        message("user-transcription", text="How are you?", final=True),
        message("user-transcription", text="Well", final=False),
    ) == [["user", "How are you?", False], ["user", "Well", True]]


def test_what_newer_bots_tell_twice_is_shown_once() -> None:
    assert transcript(
        message("user-input", text="Hello.", input_type="transcription", final=True),
        message("user-transcription", text="Hello.", final=True),
        message("user-llm-text", text="Hello."),
    ) == [["user", "Hello.", False]]


def test_a_typed_text_is_not_shown_again_when_the_bot_confirms_it() -> None:
    typed = {**message("send-text", content="Hi"), "id": "typed"}
    confirmed = message("user-input", text="Hi", input_type="chat", final=True, msg_id="typed")
    assert transcript(typed, confirmed) == [["user", "Hi", False]]


def test_a_segment_fills_while_it_is_spoken() -> None:
    def segment(status: str, said: str, rest: str) -> Message:
        progress = {"accumulated_text": said, "remaining_text": rest}
        whole = {"text": "One two.", "segment_id": 7, "output_type": "sentence"}
        return message("bot-output", **whole, spoken_status=status, spoken_progress=progress)

    started = [
        message("bot-ready", version="2.2.0"),
        segment("new", "", "One two."),
        segment("in-progress", "One", "two."),
    ]
    assert transcript(*started) == [["bot", "One | two.", True]]
    assert transcript(*started, segment("completed", "One two.", "")) == [["bot", "One two.", False]]


def test_a_sentence_of_protocol_1_is_shown_once() -> None:
    def output(text: str, *, spoken: bool, by: str = "sentence") -> Message:
        return message("bot-output", text=text, spoken=spoken, aggregated_by=by)

    assert transcript(
        message("bot-ready", version="1.2.0"),
        output("One two.", spoken=False),
        output("One", spoken=True, by="word"),
        output("two.", spoken=True, by="word"),
        message("bot-tts-text", text="two."),
        message("bot-transcription", text="One two."),
        output("Three.", spoken=False),
        output("Three.", spoken=True),
        output("Three.", spoken=True),
    ) == [["bot", "One two.", False], ["bot", "Three.", False], ["bot", "Three.", False]]


def test_bots_that_know_no_bot_output_are_read_too() -> None:
    ready = message("bot-ready", version="1.0.0")
    spoken = message("bot-tts-text", text="Welcome.")
    assert transcript(ready, spoken) == [["bot", "Welcome.", False]]
    thought = message("bot-transcription", text="Welcome.")
    assert transcript(ready, message("bot-llm-started"), thought, spoken) == [["bot", "Welcome.", False]]


def test_messages_of_any_kind_break_nothing() -> None:
    assert transcript({"type": "user-transcription"}, {}, message("metrics"), message("bot-output")) == [
        ["user", "", False],
        ["bot", "", False],
    ]


FLAT = {"status": 0, "code": "0", "message": "As the gateway says.", "error": "."}
NESTED = {"error": {"code": "some_code", "message": "As the pod says.", "session_id": "1"}}


@pytest.mark.parametrize(
    ("status", "body", "words", "detail"),
    [
        (401, FLAT, "asks for an API key", "As the gateway says."),
        (404, NESTED, "does not know this session", "As the pod says."),
        (429, FLAT, "raise MAX_SESSIONS", "As the gateway says."),
        (501, NESTED, "pipecat-base[webrtc]", "As the pod says."),
        (503, {**FLAT, "reason": "starting"}, "still starting", "As the gateway says."),
        (503, {"error": {"code": "draining", "message": "Bye."}}, "shutting down", "Bye."),
        (500, None, "failed to answer", "HTTP 500"),
        (502, "no object", "failed to answer", "HTTP 502"),
        (400, FLAT, "refused", "As the gateway says."),
    ],
)
def test_a_refusal_has_words_that_help_and_the_servers_own(status: int, body: Any, words: str, detail: str) -> None:
    (told,) = modules(refusals=[[status, body]])["words"]
    assert words in f"{told['title']} {told['help']}"
    assert told["detail"] == detail
