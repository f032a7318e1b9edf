"""Suggestions for misspelled names."""

from __future__ import annotations

import pytest

from pipecat_base.config.suggestions import nearest

KNOWN = ("HOST", "PORTS", "SETUP", "TEARDOWN", "MIN_SESSIONS", "MAX_SESSIONS")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PORT", "PORTS"),  # one letter missing
        ("PORTTS", "PORTS"),  # one letter too many
        ("PARTS", "PORTS"),  # one wrong
        ("PROTS", "PORTS"),  # two swapped
        ("PARTZ", None),  # two wrong in a short name
        ("max_sesions", "MAX_SESSIONS"),
        ("MAX_SESIONZ", "MAX_SESSIONS"),  # two wrong in a long one
        ("MAX_SESIONZZ", None),
        ("MAM_SESSIONS", "MAX_SESSIONS"),  # nearer than MIN_SESSIONS
        ("HOSTS", None),  # HOST is too short
        ("BEARDOWN", None),  # another first letter
        ("", None),
    ],
)
def test_a_name_that_is_nearly_a_known_one_has_a_suggestion(name: str, meant: str | None) -> None:
    assert nearest([name], KNOWN) == ({} if meant is None else {name: meant})
