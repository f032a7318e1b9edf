"""The event bus: who may emit which events, in what order they arrive, and sinks that fail."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from pipecat_base.api.requests import caller
from pipecat_base.logs.logger import logger
from pipecat_base.sessions import outcome
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.telemetry.bus import EventBus
from pipecat_base.telemetry.delivery import DeliveryQueue
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.reports import Reports
from pipecat_base.telemetry.session_context import ObserverOptions, SessionContext, current, within_session
from tests.support.launchers import Launcher, until


class RecordingSink:
    """Keeps its events."""

    def __init__(self, error: Exception | None = None) -> None:
        self.events: list[Event] = []
        self.within: float | None = None
        self._error = error

    def handle(self, event: Event) -> None:
        self.events.append(event)
        if self._error is not None:
            raise self._error

    def close(self, within: float) -> None:
        self.within = within
        time.sleep(0.01)
        if self._error is not None:
            raise self._error


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Lines that are logged meanwhile."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]))
    yield found
    logger.remove(sink)


async def lived(event_bus: EventBus, *states: SessionState) -> None:
    """A session that goes through these states."""
    session = Session("s", TransportKind.PLAIN, None)
    for state in states:
        session.state = state
        session.entered.setdefault(state, datetime.now(UTC))
        session.report = Report(Outcome.COMPLETED, "The bot returned.", 1.0) if state is SessionState.ENDED else None
        event_bus.on_change(session)


def emitted(*states: SessionState) -> list[tuple[str, Mapping[str, Any]]]:
    sink = RecordingSink()
    asyncio.run(lived(EventBus([sink]), *states))
    return [(event.name, event.fields) for event in sink.events]


def test_a_session_that_is_announced_late_was_admitted_when_its_slot_was_taken() -> None:
    async def scene() -> None:
        session = Session("s", TransportKind.PLAIN, None)
        admitted = session.entered[SessionState.ADMITTED] = datetime.now(UTC) - timedelta(seconds=3)
        EventBus([sink]).on_change(session)
        assert [event.at for event in sink.events] == [admitted.timestamp()]

    sink = RecordingSink()
    asyncio.run(scene())


def test_each_state_is_emitted_once_although_two_processes_enter_it() -> None:
    states = (
        SessionState.ADMITTED,
        SessionState.ADMITTED,
        SessionState.RUNNING,
        SessionState.RUNNING,
        SessionState.ENDED,
    )
    assert [name for name, _ in emitted(*states)] == ["session_admitted", "session_running", "session_ended"]
    twice = [name for name, _ in emitted(*states, *states)]
    assert twice == ["session_admitted", "session_running", "session_ended"] * 2


def test_a_start_that_waited_for_its_peer_is_not_timed() -> None:
    assert "start_secs" in dict(emitted(SessionState.ADMITTED, SessionState.RUNNING))["session_running"]
    assert (
        "start_secs"
        not in dict(emitted(SessionState.ADMITTED, SessionState.WAITING, SessionState.RUNNING))["session_running"]
    )


def test_an_id_that_is_used_again_is_a_session_of_its_own() -> None:
    events = emitted(
        SessionState.ADMITTED,
        SessionState.WAITING,
        SessionState.RUNNING,
        SessionState.ENDED,
        SessionState.ADMITTED,
        SessionState.RUNNING,
        SessionState.ENDED,
    )
    assert ["start_secs" in fields for name, fields in events if name == "session_running"] == [False, True]


def test_a_session_whose_bot_never_ran_has_no_duration() -> None:
    assert (
        dict(emitted(SessionState.ADMITTED, SessionState.RUNNING, SessionState.ENDED))["session_ended"]["duration_secs"]
        == 1.0
    )
    assert (
        "duration_secs"
        not in dict(emitted(SessionState.ADMITTED, SessionState.WAITING, SessionState.ENDED))["session_ended"]
    )


def test_a_sink_that_fails_does_not_affect_the_others(lines: list[str]) -> None:
    bad, good = RecordingSink(ValueError("broken")), RecordingSink()
    event_bus = EventBus([bad, good])
    for _ in range(3):
        event_bus.emit("turn", "s", {"number": 1})
    assert len(bad.events) == len(good.events) == 3
    assert lines == ["RecordingSink failed to handle the event turn; other event sinks are not affected"]


def test_sinks_share_the_time_to_close_and_one_that_fails_keeps_no_other_from_it(lines: list[str]) -> None:
    sinks = [RecordingSink(ValueError("broken")), RecordingSink(), RecordingSink()]
    EventBus(sinks).close(10)
    times = [sink.within or 0 for sink in sinks]
    assert 10 >= times[0] > times[1] > times[2] > 0
    assert lines == ["RecordingSink could not be closed: ValueError"]


def test_a_session_is_current_only_within_its_context() -> None:
    with within_session(SessionContext("s", ObserverOptions(), lambda *event: None)):
        assert current.get() is not None
    assert current.get() is None


def test_the_oldest_of_too_many_items_are_dropped_and_counted() -> None:
    done: list[int] = []
    dropped: list[int] = []
    begun, gate = threading.Event(), threading.Event()

    def handle(item: int) -> None:
        begun.set()
        gate.wait(10)
        done.append(item)

    queue: DeliveryQueue[int] = DeliveryQueue("test", handle, max_items=3, on_drop=dropped.append)
    queue.put(0)
    assert begun.wait(10)
    for item in range(1, 8):
        queue.put(item)
    gate.set()
    assert queue.close(10) == 0
    assert done == [0, 5, 6, 7]
    assert dropped == [1, 2, 3, 4]


def test_an_item_that_fails_does_not_affect_the_next(lines: list[str]) -> None:
    done: list[int] = []

    def handle(item: int) -> None:
        done.append(1 // item)

    queue: DeliveryQueue[int] = DeliveryQueue("test", handle, max_items=3, on_drop=lambda count: None)
    for item in (0, 1):
        queue.put(item)
    assert queue.close(10) == 0
    assert done == [1]
    assert lines == ["The thread test failed: ZeroDivisionError"]


def test_close_waits_for_the_item_in_delivery_within_its_bound() -> None:
    done: list[int] = []
    begun, gate = threading.Event(), threading.Event()

    def handle(item: int) -> None:
        begun.set()
        gate.wait(10)
        done.append(item)

    queue: DeliveryQueue[int] = DeliveryQueue("test", handle, max_items=3, on_drop=lambda count: None)
    queue.put(1)
    assert begun.wait(10)
    assert queue.close(0.05) == 1
    gate.set()
    assert queue.close(10) == 0
    assert done == [1]


def test_only_the_latest_reports_stay_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat_base.telemetry.reports.MAX_REPORTS", 3)
    reports = Reports(None, None, None, content=False)
    for number in range(5):
        reports.handle(Event("session_admitted", f"s-{number}", {"transport": "plain"}))
        reports.handle(Event("session_ended", f"s-{number}", {"outcome": "completed", "reason": "x"}))
    assert [number for number in range(5) if reports.get(f"s-{number}")] == [2, 3, 4]
    assert outcome.MAX_REPORTS > 3


@pytest.mark.parametrize(
    ("host", "forwarded", "wanted"),
    [
        ("8.8.8.8", None, "8.8.8.8"),
        ("8.8.8.8", "198.51.100.1", "8.8.8.8"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1 through 10.0.0.1"),
        ("10.0.0.1", "made up, 198.51.100.1", "198.51.100.1 through 10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "198.51.100.1, no address\x1b[2J", "10.0.0.1"),
        ("10.0.0.1", "fe80::1%\x1b[2J", "10.0.0.1"),
        ("10.0.0.1", "fe80::1", "fe80::1 through 10.0.0.1"),
        ("fe80::1%eth0", "198.51.100.1", "198.51.100.1 through fe80::1"),
        ("::ffff:8.8.8.8", None, "8.8.8.8"),
        ("testclient", "198.51.100.1", None),
    ],
)
def test_the_callers_address_is_that_behind_ones_own_proxy(
    host: str, forwarded: str | None, wanted: str | None
) -> None:
    headers = [] if forwarded is None else [(b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": (host, 1)}
    assert caller(Request(scope)).peer == wanted


EMITS = """
import os, threading, time

from pipecat_base.telemetry.session_context import current


async def bot(args):
    session = current.get()
    body = args.body
    for _ in range(body.get("count", 0)):
        session.emit("turn", {"number": 1})
    if body.get("forge"):
        for name in ("session_ended", "session_admitted", "refused", "process_wait"):
            session.emit(name, {"transport": "plain", "outcome": "made up", "reason": "made up", "wait_secs": 1})
        session.session_emit("another", "turn", {"number": 1}, time.time())
    if body.get("thread"):
        thread = threading.Thread(target=session.emit, args=("turn", {"number": 1}))
        thread.start()
        thread.join()
    if body.get("fork"):
        child = os.fork()
        if child == 0:
            session.emit("turn", {"number": 1})
            os._exit(0)
        os.waitpid(child, 0)
    import asyncio

    await asyncio.sleep(0.1)
"""


def launch(folder: Path, **variables: Any) -> Launcher:
    (folder / "bot.py").write_text(EMITS)
    return Launcher(folder, PIPECAT_REPORTS_DIR=str(folder), PIPECAT_GATEWAY="1", **variables)


def report_of(launcher: Launcher, body: Any) -> Any:
    session_id = launcher.http.post("/v1/public/agent/start", json={"body": body}).json()["sessionId"]
    until(lambda: launcher.http.get(f"/sessions/{session_id}").json()["state"] == "ended", "its end")
    return launcher.http.get(f"/sessions/{session_id}").json()["report"]


def test_events_of_another_thread_arrive_and_those_of_a_fork_do_not(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher:
        assert report_of(launcher, {"thread": True})["turns"] == 1
        assert report_of(launcher, {"fork": True})["turns"] == 0


def test_a_worker_cannot_forge_events_of_the_launcher(tmp_path: Path) -> None:
    with launch(tmp_path, PIPECAT_ISOLATION="process") as launcher:
        report = report_of(launcher, {"forge": True})
    assert (report["outcome"], report["turns"]) == ("completed", 0)


@pytest.mark.parametrize("calls", [1, 2])
def test_a_flood_of_events_is_bounded_for_each_call_that_a_process_may_run(tmp_path: Path, calls: int) -> None:
    with launch(tmp_path, PIPECAT_ISOLATION="process", PIPECAT_CALLS_PER_PROCESS=str(calls)) as launcher:
        began = time.monotonic()
        report = report_of(launcher, {"count": 20_000})
        allowed = 1000 + 100 * (time.monotonic() - began) + 1
        assert 1000 * calls <= report["turns"] <= allowed * calls
        assert report["process"] is not None
        assert len(launcher.lines("exceeded its event rate")) == 1
