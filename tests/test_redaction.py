"""A relay's URL in a line of a log, in every form."""

from __future__ import annotations

from urllib.parse import quote, quote_plus, unquote

import pytest

from pipecat_base.redaction import MAX_URLS, RELAY, Redaction

TOKEN = "eyJhbGciOi.J9+x/y=="
URL = f"https://user:passw0rd!@relay.example/moq?jwt={quote(TOKEN, safe='')}&v=1#fragment-secret"


@pytest.fixture
def redact() -> Redaction:
    hidden = Redaction()
    hidden.hide(URL)
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
    ],
)
def test_it_and_its_pieces_are_hidden(redact: Redaction, text: str) -> None:
    shown = redact(f"could not dial {text}, again {text}.")
    assert RELAY in shown
    for secret in ("eyJhbGciOi", "fragment-secret", "passw0rd", "moq?"):
        assert secret not in shown
    assert shown.startswith("could not dial ")


def test_short_values_and_other_text_are_left(redact: Redaction) -> None:
    assert redact("v=1 at relay.example, 1 of 1") == "v=1 at relay.example, 1 of 1"


def test_a_url_that_is_none_is_hidden_whole() -> None:
    redact = Redaction()
    redact.hide("https://[broken")
    assert redact("dialled https://[broken") == f"dialled {RELAY}"


def test_the_oldest_are_forgotten() -> None:
    redact = Redaction()
    for number in range(MAX_URLS + 1):
        redact.hide(f"https://relay/{number:04}")
    assert redact("https://relay/0000") == "https://relay/0000"
    assert redact("https://relay/0001") == RELAY
