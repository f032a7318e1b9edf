"""Names that were meant to be others."""

from __future__ import annotations

import pytest

from pipecat_base.config.suggestions import nearest

KNOWN = ("HOST", "PORTS", "SETUP", "TEARDOWN", "MIN_SESSIONS", "MAX_SESSIONS")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PORT", "PORTS"),  # one left out
        ("PORTTS", "PORTS"),  # one put in
        ("PARTS", "PORTS"),  # one changed
        ("PROTS", "PORTS"),  # two exchanged
        ("PARTZ", None),  # two slips in a short name
        ("SETUPUP", None),
        ("max_sesions", "MAX_SESSIONS"),
        ("MAX_SESIONZ", "MAX_SESSIONS"),  # two slips in a long one
        ("MAX_SESIONZZ", None),
        ("MAM_SESSIONS", "MAX_SESSIONS"),  # nearer than MIN_SESSIONS
        ("HOSTS", None),  # too short a name to be near to
        ("BEARDOWN", None),  # nobody slips at the first letter
        ("", None),
    ],
)
def test_the_nearest_name_is_one_slip_away_or_two(name: str, meant: str | None) -> None:
    assert nearest([name], KNOWN) == ({} if meant is None else {name: meant})
