"""The report of a call: its bounds, and sums over peers and processes."""

from __future__ import annotations

from typing import Any

from pipecat_base.telemetry import call_report
from pipecat_base.telemetry.call_report import CallReport
from pipecat_base.telemetry.events import Event

Emitted = tuple[str, dict[str, Any]]


def reported(*events: Emitted, content: bool = False) -> dict[str, Any]:
    call = CallReport(Event("session_admitted", "s", {"transport": "webrtc"}, 100.0), content=content)
    for name, fields in events:
        call.handle(Event(name, "s", fields, 101.0))
    return call.end(Event("session_ended", "s", {"outcome": "completed", "reason": "The bot returned."}, 102.0))


def test_the_report_of_a_long_call_is_bounded() -> None:
    more: list[Emitted] = []
    for number in range(2 * call_report.MAX_TURNS):
        more += [
            ("user_bot_latency", {"latency_secs": 0.5}),
            ("error", {"category": "unknown"}),
            ("service_usage", {"kind": "llm", "processor": f"LLM#{number}", "prompt_tokens": 1}),
            ("service_latency", {"kind": "ttfb", "processor": f"LLM#{number}", "seconds": 0.5}),
        ]
    report = reported(*more)
    assert len(report["latency"]["turns"]) == call_report.MAX_TURNS
    assert len(report["errors"]) == call_report.MAX_ERRORS
    assert len(report["usage"]) == len(report["ttfb"]) == call_report.MAX_SERVICES


def test_a_long_transcript_keeps_its_beginning() -> None:
    size = call_report.MAX_TRANSCRIPT_CHARACTERS // 10
    turns = [("transcript", {"text": f"{number}" * size, "role": "user"}) for number in range(9)]
    after: Emitted = ("transcript", {"text": "ab" * size, "role": "user"})  # too long
    last: Emitted = ("transcript", {"text": "c", "role": "user"})  # would fit, but something before it is missing
    report = reported(*turns, after, last, content=True)
    assert [turn["text"][0] for turn in report["transcript"]] == list("012345678")
    assert "transcript" not in reported(*turns)


def test_the_first_speech_is_the_first() -> None:
    speech: list[Emitted] = [("first_bot_speech_latency", {"latency_secs": seconds}) for seconds in (0.5, 7.0)]
    assert reported(*speech)["first_speech_seconds"] == 0.5


def test_an_error_has_its_time_once() -> None:
    (error,) = reported(("error", {"category": "quota", "timestamp": 101.0}))["errors"]
    assert error == {"at": "1970-01-01T00:01:41.000+00:00", "category": "quota"}


def test_packets_of_several_peers_are_added_and_the_worst_jitter_is_reported() -> None:
    def peer(name: str, received: int, lost: int, jitter: float) -> Emitted:
        fields = {"peer": name, "packets_received": received, "packets_lost": lost, "jitter_secs": jitter}
        return "webrtc_stats", fields

    connected: list[Emitted] = [("webrtc_connected", {"connect_secs": seconds}) for seconds in (0.25, 9.0)]
    stats = [peer("a", 100, 1, 0.5), peer("a", 200, 2, 0.03), peer("b", 1000, 10, 0.01)]
    assert reported(*connected, *stats)["webrtc"] == {
        "connect_seconds": 0.25,
        "packets_received": 1200,
        "packets_lost": 12,
        "jitter_seconds": 0.03,
    }
    many = [peer(f"{number}", 1, 0, 0.0) for number in range(2 * call_report.MAX_PEERS)]
    assert reported(*many)["webrtc"]["packets_received"] == call_report.MAX_PEERS
    assert reported()["webrtc"] is None


def test_cpu_time_is_added_and_the_peak_of_memory_is_kept() -> None:
    used: list[Emitted] = [
        ("process", {"cpu_secs": 1.5, "peak_memory_bytes": 300, "shared": False}),
        ("process", {"cpu_secs": 0.25, "peak_memory_bytes": 200, "shared": False}),
    ]
    assert reported(*used)["process"] == {"cpu_seconds": 1.75, "peak_memory_bytes": 300, "shared": False}
