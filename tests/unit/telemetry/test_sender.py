"""Sending reports to an operator's address: which are retried, how often, and what is logged."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from pipecat_base.logs.logger import logger
from pipecat_base.telemetry import reports
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.reports import Reports, ReportSender
from tests.support.launchers import until
from tests.support.report_sink import Sink, served


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """Lines that are logged meanwhile."""
    found: list[str] = []
    sink = logger.add(lambda message: found.append(message.record["message"]))
    yield found
    logger.remove(sink)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(reports, "MAX_RETRY_SECONDS", 0.002)


def sending(sink: Sink, *names: str) -> tuple[ReportSender, list[str]]:
    """A sender with these reports, and the ids of those that are done."""
    done: list[str] = []

    sender = ReportSender(sink.url(), None, on_done=lambda report: done.append(report["id"]))
    for name in names:
        sender.put({"id": name, "session_id": "s", "ended_at": "now"})
    return sender, done


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [400, 410, 413, 422])
def test_a_report_that_is_rejected_for_good_is_tried_once(status: int) -> None:
    with Sink(status) as sink:
        sender, done = sending(sink, "a")
        assert sender.close(10) == 0
        assert (done, len(sink.posts)) == (["a"], 1)


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("status", [401, 404, 429, 500])
def test_a_report_is_retried_until_it_is_accepted(status: int, lines: list[str]) -> None:
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


def test_the_pause_between_two_tries_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "FIRST_RETRY_SECONDS", 0.01)
    with Sink(503) as sink:
        began = time.monotonic()
        sender, _ = sending(sink, "a")
        until(lambda: len(sink.posts) == 6, "six tries")
        assert time.monotonic() - began >= 0.01 + 0.02 + 0.04 + 0.08 + 0.16
        assert sender.close(10) == 1


def test_close_tries_each_report_once_more() -> None:
    with Sink(503) as sink:
        sender, done = sending(sink, "a", "b")
        until(lambda: len(sink.posts) == 2, "a first try of each")
        assert sender.close(10) == 2
        assert len(sink.posts) <= 4
        assert not done


def test_the_newest_of_too_many_pending_reports_are_not_sent(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr(reports, "MAX_PENDING_REPORTS", 2)
    with Sink(None) as sink:
        sender, _ = sending(sink, "under way")
        until(lambda: sink.posts, "the first to be under way")
        for name in "abcd":
            sender.put({"id": name, "session_id": "s", "ended_at": "now"})
        assert sender.close(0) == 3
    assert len([line for line in lines if "2 reports wait" in line]) == 2


def send_to(url: str) -> int:
    """Have one report sent; the number that is left."""
    sender = ReportSender(url, None, on_done=lambda report: None)
    sender.put({"id": "a", "session_id": "s", "ended_at": "now"})
    return sender.close(10)


def test_a_redirect_is_not_followed() -> None:
    with Sink() as sink:

        def moved(self: BaseHTTPRequestHandler) -> None:
            self.send_response(302)
            self.send_header("location", sink.url())
            self.send_header("content-length", "0")
            self.end_headers()

        with served(do_POST=moved) as (url, _):
            assert send_to(url) == 1
        assert not sink.posts


def test_a_response_without_an_end_is_not_read_to_it() -> None:
    sent = 0

    def endless(self: BaseHTTPRequestHandler) -> None:
        nonlocal sent
        self.send_response(200)
        self.end_headers()
        for _ in range(1000):
            try:
                self.wfile.write(b"x" * reports.MAX_RESPONSE_BYTES)
            except OSError:
                break
            sent += 1
        self.close_connection = True

    with served(do_POST=endless) as (url, _):
        assert send_to(url) == 0
    assert sent < 1000


@pytest.mark.parametrize("path", ["s3cr3t", "s3cr3t with blanks"])
def test_the_log_holds_no_part_of_an_address_that_cannot_be_reached(path: str, lines: list[str]) -> None:
    assert send_to(f"http://127.0.0.1:9/{path}") == 1
    assert lines
    assert "s3cr3t" not in str(lines)


def test_lost_reports_are_logged(lines: list[str]) -> None:
    with Sink(503) as sink:
        kept = Reports(None, sink.url(), None, content=False)
        kept.handle(Event("session_admitted", "s", {"transport": "plain"}))
        kept.handle(Event("session_ended", "s", {"outcome": "completed", "reason": "The bot returned."}))
        kept.close(10)
    assert "Reports of calls that were not sent: 1; without PIPECAT_REPORTS_DIR they are lost" in lines


def test_reports_in_memory_have_no_transcript() -> None:
    kept = Reports(None, None, None, content=True)
    kept.handle(Event("session_admitted", "s", {"transport": "plain"}))
    kept.handle(Event("transcript", "s", {"text": "what was said", "role": "user"}))
    kept.handle(Event("session_ended", "s", {"outcome": "completed", "reason": "The bot returned."}))
    report = kept.get("s")
    assert report is not None
    assert report["outcome"] == "completed"
    assert "what was said" not in str(report)


def test_events_after_the_end_change_no_report() -> None:
    kept = Reports(None, None, None, content=False)
    kept.handle(Event("session_admitted", "s", {"transport": "plain"}))
    for outcome in ("completed", "failed"):
        kept.handle(Event("session_ended", "s", {"outcome": outcome, "reason": "The first cause counts."}))
    report = kept.get("s")
    assert report is not None
    assert report["outcome"] == "completed"
