from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.errors import AtCapacity, TooLarge
from pipecat_base.gateway import pending_sessions
from pipecat_base.gateway.pending_sessions import PendingSessions


def invite(open_ones: PendingSessions, session_id: str, body: Any) -> None:
    asyncio.run(open_ones.invite(session_id, body))


def test_an_invitation_is_good_until_its_time_is_over() -> None:
    now = [100.0]
    open_ones = PendingSessions(lifetime=300, clock=lambda: now[0])
    invite(open_ones, "a", {"name": "Ada"})
    now[0] += 299
    found = open_ones.find("a")
    assert found is not None
    assert found.body == b'{"name": "Ada"}'
    now[0] += 2
    assert open_ones.find("a") is None
    assert open_ones.find("b") is None


def test_beyond_the_most_the_next_is_refused_and_every_promise_is_kept() -> None:
    now = [0.0]
    open_ones = PendingSessions(lifetime=300, clock=lambda: now[0])
    for number in range(pending_sessions.MOST):
        invite(open_ones, str(number), None)
    for number in range(5):
        with pytest.raises(AtCapacity):
            invite(open_ones, f"late {number}", None)
    assert all(open_ones.find(str(number)) for number in range(pending_sessions.MOST))
    assert open_ones.find("late 0") is None
    open_ones.withdraw("7")
    invite(open_ones, "later", None)
    now[0] += 300
    invite(open_ones, "much later", None)


def test_their_bodies_never_take_more_than_the_largest() -> None:
    open_ones = PendingSessions(clock=lambda: 0.0)
    most = pending_sessions.LARGEST // (pending_sessions.LARGEST_BODY // 2 + 2)
    for number in range(most):
        invite(open_ones, str(number), "x" * (pending_sessions.LARGEST_BODY // 2))
    with pytest.raises(AtCapacity):
        invite(open_ones, "one more", "x" * (pending_sessions.LARGEST_BODY // 2))
    with pytest.raises(TooLarge):
        invite(open_ones, "large", "x" * pending_sessions.LARGEST_BODY)
    assert [str(n) for n in range(5) if open_ones.find(str(n))] == ["0", "1", "2", "3", "4"]


def test_one_that_was_withdrawn_is_gone() -> None:
    open_ones = PendingSessions()
    invite(open_ones, "a", None)
    assert open_ones.withdraw("a")
    assert open_ones.find("a") is None
    assert not open_ones.withdraw("a")
