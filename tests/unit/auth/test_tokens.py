from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipecat_base.auth.tokens import Tokens
from tests.support.launchers import BOTS, run


def test_a_token_is_valid_once() -> None:
    tokens = Tokens(None)
    token = tokens.mint()
    assert tokens.consume(token)
    assert not tokens.consume(token)


def test_a_used_token_stays_used_however_many_are_used_after_it() -> None:
    tokens = Tokens(None)
    used = [tokens.mint() for _ in range(3)]
    assert all(map(tokens.consume, used))
    assert not any(map(tokens.consume, used))


def test_a_token_expires() -> None:
    now = 1_000_000.0
    tokens = Tokens("secret", clock=lambda: now)
    token = tokens.mint()
    now += 299
    assert tokens.consume(token)
    late = tokens.mint()
    now += 300
    assert not tokens.consume(late)


def test_used_tokens_are_forgotten_when_they_have_expired() -> None:
    now = 1_000_000.0
    tokens = Tokens("secret", clock=lambda: now)
    for _ in range(100):
        assert tokens.consume(tokens.mint())
        now += 100
    assert len(tokens._used) <= 3


@given(st.text())
def test_anything_else_is_refused(text: str) -> None:
    assert not Tokens("secret").consume(text)


@given(st.integers(0, 200), st.characters())
def test_a_changed_token_is_refused(position: int, character: str) -> None:
    tokens = Tokens("secret")
    token = tokens.mint()
    position %= len(token)
    changed = token[:position] + character + token[position + 1 :]
    assert tokens.consume(changed) is (changed == token)


@pytest.mark.parametrize("other", [None, "other"])
def test_another_secrets_token_is_refused(other: str | None) -> None:
    assert not Tokens("secret").consume(Tokens(other).mint())


def test_the_command_prints_a_token() -> None:
    result = run("token", cwd=BOTS, PIPECAT_WEBSOCKET_SECRET="shared")
    assert Tokens("shared").consume(result.stdout.strip())
    assert run("token", cwd=BOTS).returncode == 24


def test_a_token_for_a_session_is_valid_for_no_other() -> None:
    tokens = Tokens("secret")
    token = tokens.mint(session_id="mine")
    assert not tokens.is_valid(token, "another")
    assert not tokens.consume(token)
    assert tokens.consume(token, "mine")


def test_a_token_is_valid_once_in_each_process_that_shares_the_secret() -> None:
    token = Tokens("secret").mint(session_id="mine")
    again = Tokens("secret")
    assert again.consume(token, "mine")
    assert not again.consume(token, "mine")
