"""How sessions ended, in the platform's words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pipecat_base.errors import NoOffer, NoProcess, NotReached, Refusal
from pipecat_base.gateway.cloud_api import sessions
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.registry import PastSession, SessionState
from pipecat_base.sessions.transports import TransportKind

START = datetime(2026, 1, 2, tzinfo=UTC)
RAN = (SessionState.ADMITTED, SessionState.RUNNING, SessionState.ENDED)
WAITED = (SessionState.ADMITTED, SessionState.WAITING, SessionState.ENDED)
NEITHER = (SessionState.ADMITTED, SessionState.ENDED)


def past(
    outcome: Outcome, states: tuple[SessionState, ...], refusal: type[Refusal] | None = None
) -> sessions.SessionRecord:
    entered = {state: START + timedelta(seconds=2 * index) for index, state in enumerate(states)}
    return sessions._past(PastSession("s", TransportKind.PLAIN, Report(outcome, "", 1.0), entered, refusal))


@pytest.mark.parametrize(
    ("outcome", "states", "refusal", "state", "status"),
    [
        (Outcome.COMPLETED, RAN, None, "completed", "200"),
        (Outcome.DISCONNECTED, RAN, None, "completed", "200"),
        (Outcome.FAILED, RAN, None, "agent_error", "500"),
        (Outcome.CANCELLED, RAN, None, "terminated", "200"),
        (Outcome.EXPIRED, RAN, None, "terminated", "200"),
        (Outcome.DRAINED, RAN, None, "terminated", "200"),
        (Outcome.EXPIRED, WAITED, None, "ended_before_agent_start", "200"),
        (Outcome.DISCONNECTED, WAITED, None, "ended_before_agent_start", "200"),
        (Outcome.DRAINED, WAITED, None, "ended_before_agent_start", "200"),
        (Outcome.CANCELLED, WAITED, None, "terminated", "200"),
        (Outcome.FAILED, WAITED, NoOffer, "ended_before_agent_start", "504"),
        (Outcome.FAILED, NEITHER, NotReached, "ended_before_agent_start", "502"),
        (Outcome.FAILED, NEITHER, None, "agent_error", "500"),
        (Outcome.FAILED, NEITHER, NoProcess, "agent_start_timeout", "503"),
    ],
)
def test_end_states(
    outcome: Outcome, states: tuple[SessionState, ...], refusal: type[Refusal] | None, state: str, status: str
) -> None:
    record = past(outcome, states, refusal)
    assert (record.end_state, record.completion_status) == (state, status)


def test_a_session_that_got_no_process_timed_out() -> None:
    codes = [event["eventCode"] for event in past(Outcome.FAILED, NEITHER, NoProcess).events()]
    assert codes == ["SESSION_START_INITIATED", "SESSION_TIMEOUT"]


@pytest.mark.parametrize(("states", "seconds"), [(RAN, 2), (WAITED, 2), (NEITHER, None)])
def test_the_start_ends_when_the_bot_runs_or_waits_for_its_caller(
    states: tuple[SessionState, ...], seconds: int | None
) -> None:
    assert past(Outcome.COMPLETED, states).start_seconds == seconds


def test_percentiles_are_by_the_nearest_rank() -> None:
    found = sessions._percentiles("x", [float(value) for value in range(1, 101)])
    assert found == {"xP50": 50, "xP90": 90, "xP95": 95, "xP99": 99}
    assert set(sessions._percentiles("x", [3.0]).values()) == {3}
