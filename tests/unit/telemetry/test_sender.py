"""Reports on their way to an operator's address: which are tried again, how often, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from pipecat_base.logs.logger import logger
from pipecat_base.telemetry import reports
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.reports import Reports, ReportSender
from tests.support.launchers import until
from tests.support.report_sink import Sink


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """What is logged meanwhile."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]))
    yield found
    logger.remove(sink)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_RETRY", 0.001)
    monkeypatch.setattr(reports, "LAST_RETRY", 0.002)


def sending(sink: Sink, *names: str) -> tuple[ReportSender, list[str]]:
    """A sender that is to send these, and those that it is done with."""
    done: list[str] = []

    def emit(report: Mapping[str, Any]) -> None:
        done.append(report["id"])

    sender = ReportSender(sink.url(), None, on_done=emit)
    for name in names:
        sender.put({"id": name, "session_id": "s", "ended_at": "now"})
    return sender, done


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_what_will_never_be_taken_is_tried_once(status: int) -> None:
    with Sink(status) as sink:
        sender, done = sending(sink, "a")
        assert sender.close(10) == 0
        assert (done, len(sink.posts)) == (["a"], 1)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_everything_else_is_tried_until_it_is_taken(status: int, lines: list[str]) -> None:
    with Sink(status) as sink:
        sender, done = sending(sink, "a")
        until(lambda: len(sink.posts) > 30, "thirty tries: the time between two does not grow without a bound")
        assert not done
        sink.status = 204
        until(lambda: done, "its way")
        sender.put({"id": "b", "session_id": "s", "ended_at": "now"})
        assert sender.close(10) == 0
    assert lines == [
        f"PIPECAT_REPORT_URL does not take reports (HTTP status {status}); trying again until it does",
        "PIPECAT_REPORT_URL takes reports again",
    ]


def test_the_time_between_two_tries_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_RETRY", 0.01)
    with Sink(503) as sink:
        began = time.monotonic()
        sender, _ = sending(sink, "a")
        until(lambda: len(sink.posts) == 6, "six tries")
        assert time.monotonic() - began >= 0.01 + 0.02 + 0.04 + 0.08 + 0.16
        assert sender.close(10) == 1


def test_at_the_end_each_is_tried_once_more() -> None:
    with Sink(503) as sink:
        sender, done = sending(sink, "a", "b")
        until(lambda: len(sink.posts) == 2, "a first try of each")
        assert sender.close(10) == 2
        assert len(sink.posts) <= 4
        assert not done


def test_of_too_many_that_wait_the_last_ones_are_not_sent(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr(reports, "MOST_WAITING", 2)
    with Sink(None) as sink:
        sender, _ = sending(sink, "under way")
        until(lambda: sink.posts, "the first to be under way")
        for name in "abcd":
            sender.put({"id": name, "session_id": "s", "ended_at": "now"})
        assert sender.close(0) == 3
    assert len([line for line in lines if "2 reports wait" in line]) == 2


def test_reports_that_are_lost_are_told(lines: list[str]) -> None:
    with Sink(503) as sink:
        kept = Reports(None, sink.url(), None, content=False)
        kept.read(Event("session_admitted", "s", {"transport": "plain"}))
        kept.read(Event("session_ended", "s", {"outcome": "completed", "reason": "The bot returned."}))
        kept.close(10)
    assert "Reports of calls that were not sent: 1; without PIPECAT_REPORTS_DIR they are lost" in lines


def test_what_was_said_is_in_no_report_that_is_kept_in_memory() -> None:
    kept = Reports(None, None, None, content=True)
    kept.read(Event("session_admitted", "s", {"transport": "plain"}))
    kept.read(Event("transcript", "s", {"text": "what was said", "role": "user"}))
    kept.read(Event("session_ended", "s", {"outcome": "completed", "reason": "The bot returned."}))
    report = kept.get("s")
    assert report is not None
    assert report["outcome"] == "completed"
    assert "what was said" not in str(report)


def test_what_is_told_after_the_end_changes_no_report() -> None:
    kept = Reports(None, None, None, content=False)
    kept.read(Event("session_admitted", "s", {"transport": "plain"}))
    for outcome in ("completed", "failed"):
        kept.read(Event("session_ended", "s", {"outcome": outcome, "reason": "The first cause counts."}))
    report = kept.get("s")
    assert report is not None
    assert report["outcome"] == "completed"
