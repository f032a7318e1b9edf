"""What is said: lines of the log, records, what is hidden in them, and names that the platform reads."""

from __future__ import annotations

import json
import string
import sys
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.api import capabilities
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid
from pipecat_base.logs.caller_data import HIDDEN, shown
from pipecat_base.logs.jsonl import tee
from pipecat_base.logs.jsonl.records import json_line
from pipecat_base.logs.redaction import RELAY, SHORTEST_SECRET, Redaction
from tests.support.hypothesis_values import ANY_TEXT, WITH_SURROGATES, fuzz, grows_no_faster_than_its_input

pytestmark = pytest.mark.slow

PRINTED_BYTES = st.lists(
    st.binary(max_size=30) | st.sampled_from([b"\n", b"\r\n", b"x" * 20, b"\xff", "ü".encode()]), max_size=8
)


def lines_of(pieces: list[bytes]) -> list[str]:
    lines = tee.LineSplitter()
    found = [line for piece in pieces for line in lines.feed(piece)]
    return [*found, *lines.rest()]


@fuzz
@given(PRINTED_BYTES)
def test_printed_lines_are_the_same_however_they_come(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert lines_of(pieces) == lines_of([whole]) == lines_of([whole[n : n + 1] for n in range(len(whole))])


@fuzz
@given(PRINTED_BYTES)
def test_a_printed_line_is_never_longer_than_the_longest(pieces: list[bytes]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tee, "MAX_LINE_BYTES", 16)
        for line in lines_of(pieces):
            assert len(line) <= 16 + len(tee.TRUNCATED)
            assert "\n" not in line


def test_printed_lines_take_no_longer_than_they_are_long() -> None:
    def feed(size: int) -> None:
        lines = tee.LineSplitter()
        for _ in range(size):
            for _ in lines.feed(b"x" * 50 + b"\n" + b"y" * 50):
                pass

    assert grows_no_faster_than_its_input(feed, 500)


@fuzz
@given(ANY_TEXT | st.text('\n\r\x0b\x0c\x1c\x85\u2028\u2029 {}"\\', max_size=20), st.none() | ANY_TEXT)
def test_a_record_is_one_line_of_json_that_holds_what_was_said(line: str, session_id: str | None) -> None:
    written = json_line("app", line, level="INFO", session_id=session_id)
    assert len(written.splitlines()) == 1
    read = json.loads(written)
    assert (read["line"], read.get("session_id")) == (line, session_id)


# Relays.

WORD = st.text(string.ascii_lowercase + string.digits, min_size=SHORTEST_SECRET, max_size=20)


@fuzz
@given(ANY_TEXT | st.sampled_from(["https://[", "//", "?", "a?b=c", "https://a:b@c/?d=e"]), ANY_TEXT)
def test_any_url_can_be_hidden(url: str, text: str) -> None:
    redact = Redaction()
    redact.hide("s", url)
    assert isinstance(redact("s", f"{text}{url}{text}"), str)
    assert redact("other", text) == redact(None, text) == text


@fuzz
@given(WORD, WORD, WORD, ANY_TEXT)
def test_no_secret_of_a_url_is_in_a_line(token: str, user: str, password: str, text: str) -> None:
    redact = Redaction()
    redact.hide("s", f"https://{user}:{password}@relay.example/moq?jwt={quote(token)}")
    said = redact("s", f"{text} {token} {password}{user} {text}")
    assert RELAY in said
    assert not any(secret in said for secret in (token, user, password) if secret not in RELAY)


# Lines of pipecat's.

PLANTED = "+4930111222333"
TRANSPORT = "SmallWebRTCTransport#0"
VALUES = {"self": TRANSPORT, "state": "connected", "number": PLANTED, "call_data": f"{{'from': '{PLANTED}'}}"}
PARTS = st.lists(
    st.tuples(st.just("text"), st.text(string.ascii_letters + " :,.-", max_size=10))
    | st.tuples(st.just("value"), st.sampled_from(list(VALUES))),
    min_size=1,
    max_size=6,
)


@fuzz
@given(parts=PARTS)
def test_no_line_shows_what_is_not_known_to_be_harmless(parts: list[tuple[str, str]]) -> None:
    source = "".join(text if kind == "text" else f"{{{text}}}" for kind, text in parts)
    scope: dict[str, Any] = {"sys": sys}
    exec(f'def log({", ".join(VALUES)}):\n    return f"{source}", sys._getframe()', scope)
    said, frame = scope["log"](**VALUES)
    found = shown(said, frame.f_code, frame)
    assert PLANTED not in found
    assert HIDDEN not in found or any(kind == "value" for kind, _ in parts)


@fuzz
@given(message=ANY_TEXT, words=st.lists(ANY_TEXT, max_size=5))
def test_any_message_of_any_function_gives_a_line(message: str, words: list[str]) -> None:
    code = (lambda: None).__code__
    assert isinstance(shown(message, code.replace(co_consts=tuple(words))), str)


# The platform.


@fuzz
@given(st.text(max_size=400) | WITH_SURROGATES)
def test_a_reason_is_printable_ascii_on_one_line(reason: str) -> None:
    said = capabilities.clean(reason)
    assert 0 < len(said) <= capabilities.MAX_REASON
    assert said.isascii()
    assert said.isprintable()
    assert not set("[]") & set(said)
    assert capabilities.clean(said) == said


@fuzz
@given(st.dictionaries(ANY_TEXT | st.from_regex(capabilities.NAME, fullmatch=True), st.none() | ANY_TEXT, max_size=5))
def test_a_document_is_one_that_the_platform_reads_or_a_value_error(reasons: dict[str, str | None]) -> None:
    try:
        content = capabilities.document(reasons)
    except ValueError:
        return
    assert len(content) <= capabilities.MAX_BYTES
    assert json.loads(content)["capabilities"].keys() == reasons.keys()


# The environment, which is bytes.

SECRETS = ("PIPECAT_WEBSOCKET_SECRET", "PIPECAT_POD_TOKEN", "WHATSAPP_APP_SECRET", "TWILIO_AUTH_TOKEN")


@fuzz
@given(
    st.dictionaries(
        st.sampled_from([*SECRETS, "PORT", "PIPECAT_PUBLIC_URL", "PIPECAT_ALLOWED_ORIGINS"]), WITH_SURROGATES
    )
)
def test_any_bytes_in_the_environment_give_settings_or_lines(variables: dict[str, str]) -> None:
    try:
        Settings.load({**variables, "PIPECAT_GATEWAY": "1"})
    except SettingsInvalid as error:
        assert error.report()


def test_a_secret_that_is_taken_can_be_used() -> None:
    settings = Settings.load({"PIPECAT_WEBSOCKET_SECRET": "secret\udcff"})
    assert Tokens(settings.websockets.secret).mint()
