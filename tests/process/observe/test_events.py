"""The platform's event publisher, which works like that of the replaced image."""

from __future__ import annotations

import datetime
import json
import time
import uuid
from typing import Any

import pytest

from pipecat_base.telemetry.delivery import DeliveryQueue
from pipecat_base.telemetry.event_publisher import QUEUES, EventPublisher, envelope
from pipecat_base.telemetry.events import EVENT_KINDS, Event, make_event
from tests.support.launchers import Launcher
from tests.support.report_sink import Sink

PUBLISHED = {name for name, kind in EVENT_KINDS.items() if kind.is_published}


def call(sink: Sink, body: Any, **variables: Any) -> Launcher:
    variables = {"PIPECAT_EVENT_PUBLISHER_ENDPOINT": sink.url("/events"), "DRAIN_NOTICE": "0", **variables}
    with Launcher("observed", **variables) as launcher:
        launcher.post(body, x_daily_session_id="s-1")
        launcher.post({"return": True}, x_daily_session_id="s-2")
        assert launcher.stop() == 0
        launcher.final_log = launcher.log()  # type: ignore[attr-defined]
        return launcher


def test_each_event_of_a_call_is_posted_in_its_envelope() -> None:
    with Sink() as sink:
        call(sink, {"error": "s3cr3t message", "interrupted": True, "text": "what was said"})
        events = sink.contents("/events")
    ours = [event for event in events if event["session_id"] == "s-1"]
    assert {event["session_id"] for event in events} == {"s-1", "s-2"}
    wanted = {
        "session_info",
        "startup_timing",
        "transport_timing",
        "user_bot_latency",
        "first_bot_speech_latency",
        "latency_breakdown",
        "service_latency",
        "service_usage",
        "speech_event",
        "error",
        "transcript",
    }
    assert {event["event_name"] for event in ours} == wanted
    for event in ours:
        assert set(event) == {"ts", "session_id", "event_name", "event_uuid", "event_properties"}
        assert uuid.UUID(event["event_uuid"]).version == 4
        assert datetime.datetime.fromisoformat(event["ts"]).utcoffset() == datetime.timedelta(0)
        assert "." in event["ts"]
        assert set(event["event_properties"]) <= set(EVENT_KINDS[event["event_name"]].fields)
    assert len([event for event in ours if event["event_name"] == "session_info"]) == 1
    assert len({event["event_uuid"] for event in events}) == len(events)
    error = next(event for event in ours if event["event_name"] == "error")["event_properties"]
    assert (error["category"], error["exception_type"]) == ("connectivity", "TimeoutError")
    assert "s3cr3t" not in json.dumps(events)
    texts = {e["event_properties"]["role"]: e["event_properties"] for e in ours if e["event_name"] == "transcript"}
    assert texts["user"]["text"] == "what was said"
    assert texts["assistant"]["text"] == "hello to you"
    assert "interrupted" in texts["assistant"]


@pytest.mark.parametrize(("value", "is_left_out"), [("1", True), ("no", True), (" False ", False), ("", False)])
def test_transcripts_are_left_out_unless_that_is_false(value: str, is_left_out: bool) -> None:
    with Sink() as sink:
        call(sink, {"text": "what was said"}, PCC_EXCLUDE_CONTENT=value)
        assert sink.contents("/events")
        assert ("what was said" not in str(sink.posts)) == is_left_out


def test_ten_failures_in_a_row_silence_a_session_and_the_next_one_tries_again() -> None:
    with Sink(503) as sink:
        launcher = call(sink, {"turns": 3})
        sent = [event["session_id"] for event in sink.contents("/events")]
    log = launcher.final_log  # type: ignore[attr-defined]
    assert sent.count("s-1") == 10
    assert sent.count("s-2") == 1
    assert log.count("[pcc-observability] Event publish failed: 503") == 11
    assert log.count("this session sends no more") == 1


def speech(session_id: str, kind: str, number: int = 0) -> Event:
    return Event("speech_event", session_id, {"kind": kind, "timestamp": number})


def test_failures_that_are_not_in_a_row_silence_no_session() -> None:
    with Sink() as sink:
        sink.refused = b'"bad"'
        publisher = EventPublisher(sink.url(), content=True)
        for kind in [*9 * ["bad"], "good", *9 * ["bad"], "good"]:
            publisher.handle(speech("s", kind))
        publisher.close(30)
        assert len(sink.posts) == 20


def test_a_session_that_has_ended_silences_no_other_of_its_id() -> None:
    with Sink(503) as sink:
        publisher = EventPublisher(sink.url(), content=True)
        for _ in range(2):
            for _ in range(12):
                publisher.handle(speech("s", "bad"))
            publisher.handle(Event("session_ended", "s"))
        publisher.close(30)
        assert len(sink.posts) == 20


def test_the_events_of_a_session_arrive_in_order() -> None:
    with Sink() as sink:
        publisher = EventPublisher(sink.url(), content=True)
        for number in range(100):
            for session_id in ("a", "b", "c"):
                publisher.handle(speech(session_id, "good", number))
        publisher.close(30)
        events = sink.contents()
    for session_id in ("a", "b", "c"):
        found = [event["event_properties"]["timestamp"] for event in events if event["session_id"] == session_id]
        assert found == list(range(100))


def test_an_event_without_properties_has_no_object_for_them() -> None:
    assert "event_properties" not in json.loads(envelope(Event("speech_event", "s")))


def test_queues_share_the_time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def close(self: DeliveryQueue[Event], within: float) -> int:
        times.append(within)
        time.sleep(0.01)
        return 0

    monkeypatch.setattr(DeliveryQueue, "close", close)
    EventPublisher("http://127.0.0.1:9/", content=True).close(10)
    assert len(set(times)) == QUEUES
    assert times == sorted(times, reverse=True)


def test_a_publisher_that_hangs_or_cannot_be_reached_delays_no_call_and_no_shutdown() -> None:
    with Sink(None) as sink:
        call(sink, {"turns": 1})
    launcher = call(
        sink,  # closed by now
        {"turns": 1},
    )
    log = launcher.final_log  # type: ignore[attr-defined]
    assert "[pcc-observability] Event publish error: Connection refused" in log
    assert "Stopped" in log


def test_an_invalid_address_is_ignored_with_a_log_line() -> None:
    with Launcher("observed", PIPECAT_EVENT_PUBLISHER_ENDPOINT="publisher:3000") as launcher:
        assert launcher.post({"return": True}).status_code == 200
        launcher.wait_for_log("PIPECAT_EVENT_PUBLISHER_ENDPOINT: the value is not an HTTP address")


def test_an_event_holds_only_allowed_fields() -> None:
    event = make_event(
        "error",
        "s",
        {"category": "x" * 1000, "message": "secret", "processor_usable": "yes", "timestamp": float("nan")},
    )
    assert event is not None
    assert event.fields == {"category": "x" * 256}
    assert make_event("made_up", "s", {}) is None
    deep = make_event(
        "startup_timing", "s", {"processor_timings": [{"processor_name": "a", "secret": 1}, 7], "warmup": []}
    )
    assert deep is not None
    assert deep.fields == {"processor_timings": [{"processor_name": "a"}]}
    late = make_event("turn", "s", {"number": 10**400}, at=5.0)
    assert late is not None
    assert late.fields == {}
    assert late.at > 1e9
