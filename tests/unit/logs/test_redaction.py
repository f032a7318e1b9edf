"""A relay's URL in a line of a log, in every form."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, unquote

import pytest

from pipecat_base.logs.redaction import MAX_SESSIONS, RELAY, Redaction

TOKEN = "eyJhbGciOi.J9+x/y=="
URL = f"https://user-name-of-8:passw0rd!@relay.example/moq?jwt={quote(TOKEN, safe='')}&v=1#fragment-secret"


@pytest.fixture
def redact() -> Redaction:
    hidden = Redaction()
    hidden.hide("s", URL)
    return hidden


@pytest.mark.parametrize(
    "text",
    [
        URL,
        unquote(URL),
        quote(URL),
        quote(URL, safe=""),
        quote_plus(URL),
        TOKEN,
        quote(TOKEN, safe=""),
        f"jwt={quote(TOKEN, safe='')}&v=1",
        "fragment-secret",
        "passw0rd!",
        "user-name-of-8",
    ],
)
def test_it_and_its_pieces_are_hidden(redact: Redaction, text: str) -> None:
    shown = redact("s", f"could not dial {text}, again {text}.")
    assert RELAY in shown
    for secret in ("eyJhbGciOi", "fragment-secret", "passw0rd", "user-name", "moq?"):
        assert secret not in shown
    assert shown.startswith("could not dial ")


def test_short_values_and_other_text_are_left(redact: Redaction) -> None:
    assert redact("s", "v=1 at relay.example, 1 of 1") == "v=1 at relay.example, 1 of 1"


def test_a_url_that_is_none_is_hidden_whole() -> None:
    redact = Redaction()
    redact.hide("s", "https://[broken")
    assert redact("s", "dialled https://[broken") == f"dialled {RELAY}"


def test_the_lines_of_others_are_left_as_they_are(redact: Redaction) -> None:
    for other in ("other", None):
        assert redact(other, URL) == URL


def test_the_oldest_are_forgotten() -> None:
    redact = Redaction()
    for number in range(MAX_SESSIONS + 1):
        redact.hide(str(number), f"https://relay/{number:04}")
    assert redact("0", "https://relay/0000") == "https://relay/0000"
    assert redact("1", "https://relay/0001") == RELAY
