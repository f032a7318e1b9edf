from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.errors import AtCapacity, TooLarge
from pipecat_base.gateway import pending_sessions
from pipecat_base.gateway.pending_sessions import PendingSessions


def add(pending: PendingSessions, session_id: str, body: Any) -> None:
    asyncio.run(pending.add(session_id, body))


def test_a_pending_session_expires() -> None:
    now = [100.0]
    pending = PendingSessions(lifetime=300, clock=lambda: now[0])
    add(pending, "a", {"name": "Ada"})
    now[0] += 299
    found = pending.find("a")
    assert found is not None
    assert found.body == b'{"name": "Ada"}'
    now[0] += 2
    assert pending.find("a") is None
    assert pending.find("b") is None


def test_beyond_the_limit_new_sessions_are_refused_and_pending_ones_are_kept() -> None:
    now = [0.0]
    pending = PendingSessions(lifetime=300, clock=lambda: now[0])
    for number in range(pending_sessions.MAX_PENDING_SESSIONS):
        add(pending, str(number), None)
    for number in range(5):
        with pytest.raises(AtCapacity):
            add(pending, f"late {number}", None)
    assert all(pending.find(str(number)) for number in range(pending_sessions.MAX_PENDING_SESSIONS))
    assert pending.find("late 0") is None
    pending.remove("7")
    add(pending, "later", None)
    now[0] += 300
    add(pending, "much later", None)


def test_their_bodies_never_take_more_than_the_limit() -> None:
    pending = PendingSessions(clock=lambda: 0.0)
    most = pending_sessions.MAX_TOTAL_BYTES // (pending_sessions.MAX_BODY_BYTES // 2 + 2)
    for number in range(most):
        add(pending, str(number), "x" * (pending_sessions.MAX_BODY_BYTES // 2))
    with pytest.raises(AtCapacity):
        add(pending, "one more", "x" * (pending_sessions.MAX_BODY_BYTES // 2))
    with pytest.raises(TooLarge):
        add(pending, "large", "x" * pending_sessions.MAX_BODY_BYTES)
    assert [str(n) for n in range(5) if pending.find(str(n))] == ["0", "1", "2", "3", "4"]


def test_a_removed_session_is_not_found() -> None:
    pending = PendingSessions()
    add(pending, "a", None)
    assert pending.remove("a")
    assert pending.find("a") is None
    assert not pending.remove("a")
