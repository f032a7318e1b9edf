"""The report of a call: one JSON object, made of the call's events."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pipecat_base.telemetry.events import AMOUNTS, Event

VERSION = 1
MAX_TURNS = 1000
MAX_ERRORS = 100
MAX_SERVICES = 50
MAX_PEERS = 20
MAX_TRANSCRIPT_CHARACTERS = 200_000
KILLED = "The launcher was killed."
FIELDS = {
    "version": "of this format: 1",
    "id": "of the report, a UUID; the same at each attempt to send it",
    "session_id": "of the call, as in the log",
    "transport": "`plain`, `daily`, `websocket`, `webrtc`, `whatsapp`, `livekit` or `moq`",
    "peer": "the address that the call came from; behind a proxy `CALLER through PROXY`",
    "provider": "the phone provider: `twilio`, `telnyx`, `plivo` or `exotel`",
    "call_id": "the provider's own id of the call (CallSid and the like)",
    "started_at": "when the call was admitted; ISO 8601 in UTC",
    "ended_at": "when everything that it held was closed",
    "seconds": "from `started_at` to `ended_at`; null when the launcher was killed",
    "bot_seconds": "how long the bot ran",
    "start_seconds": "from the request to the bot's first line; null where the session waited for its peer",
    "outcome": "how it ended, in one word",
    "reason": "the same in a sentence",
    "failure": "of a bot that failed: `exception_type`, and `where`: its own line",
    "first_speech_seconds": "from the client's connection to the bot's first speech",
    "latency": "from the end of the user's speech to the bot's: `p50`, `p95`, `p99`, and `turns`: each turn's",
    "turns": "how many",
    "interruptions": "how many",
    "usage": "what each service used: `kind`, `processor`, `model` and its amounts",
    "ttfb": "time to the first byte of each service: `processor`, `model`, `p50`, `p95`, `p99`",
    "errors": "of the pipeline, at most 100: `at`, `category`, `exception_type`, `processor`, `processor_usable`",
    "webrtc": "`connect_seconds`, `packets_received`, `packets_lost`, `jitter_seconds`; null for other transports",
    "process": "`cpu_seconds` and `peak_memory_bytes`; `shared` is true when they are of all calls of one process",
    "transcript": "only with `PIPECAT_REPORT_CONTENT=true`: `role`, `text` and times of each turn",
}
"""Fields of a report, for the documentation."""


class CallReport:
    """Collects the events of a session from its admission on; transcripts only with ``content``."""

    def __init__(self, admitted: Event, *, content: bool) -> None:
        self._content = content
        self._head: dict[str, Any] = {
            "version": VERSION,
            "id": str(uuid.uuid4()),
            "session_id": admitted.session_id,
            "transport": admitted.fields.get("transport"),
            "peer": admitted.fields.get("peer"),
            "provider": None,
            "call_id": None,
            "started_at": iso(admitted.at),
        }
        self._began = admitted.at
        self._start: float | None = None
        self._first_speech: float | None = None
        self._latencies: list[float] = []
        self._turns = 0
        self._interruptions = 0
        self._usage: dict[tuple[str, str, str], dict[str, float]] = {}
        self._ttfb: dict[tuple[str, str], list[float]] = {}
        self._errors: list[dict[str, Any]] = []
        self._failure: Mapping[str, Any] | None = None
        self._bot_speaks = False
        self._connect: float | None = None
        self._peers: dict[str, Mapping[str, Any]] = {}
        self._process: dict[str, Any] | None = None
        self._transcript: list[dict[str, Any]] = []
        self._text_left = MAX_TRANSCRIPT_CHARACTERS

    @property
    def head(self) -> dict[str, Any]:
        """Fields that are known before the end."""
        return dict(self._head)

    def handle(self, event: Event) -> None:
        handler = getattr(self, f"_on_{event.name}", None)
        if handler is not None:
            handler(event)

    def end(self, ended: Event) -> dict[str, Any]:
        """The report. Durations are seconds; a value that was never measured is null or empty."""
        return {
            **self._head,
            "ended_at": iso(ended.at),
            "seconds": round(ended.at - self._began, 3),
            "bot_seconds": _rounded(ended.fields.get("duration_secs")),
            "start_seconds": _rounded(self._start),
            "outcome": ended.fields.get("outcome"),
            "reason": ended.fields.get("reason"),
            "failure": self._failure,
            "first_speech_seconds": _rounded(self._first_speech),
            "latency": {**percentiles(self._latencies), "turns": self._latencies},
            "turns": self._turns,
            "interruptions": self._interruptions,
            "usage": [_named(key, amounts) for key, amounts in self._usage.items()],
            "ttfb": [_named(("ttfb", *key), percentiles(seconds)) for key, seconds in self._ttfb.items()],
            "errors": self._errors,
            "webrtc": self._webrtc(),
            "process": self._process,
            **({"transcript": self._transcript} if self._content else {}),
        }

    def _on_session_running(self, event: Event) -> None:
        self._start = event.fields.get("start_secs")

    def _on_caller(self, event: Event) -> None:
        self._head.update(provider=event.fields.get("provider"), call_id=event.fields.get("call_id"))

    def _on_turn(self, event: Event) -> None:
        self._turns += 1

    def _on_user_bot_latency(self, event: Event) -> None:
        if len(self._latencies) < MAX_TURNS and "latency_secs" in event.fields:
            self._latencies.append(round(event.fields["latency_secs"], 3))

    def _on_first_bot_speech_latency(self, event: Event) -> None:
        if self._first_speech is None:
            self._first_speech = event.fields.get("latency_secs")

    def _on_speech_event(self, event: Event) -> None:
        kind = event.fields.get("kind")
        if kind in ("bot_speech_started", "bot_speech_stopped"):
            self._bot_speaks = kind == "bot_speech_started"
        elif kind == "interruption" and self._bot_speaks:  # every turn of the user begins with one
            self._interruptions += 1
            self._bot_speaks = False

    def _on_service_latency(self, event: Event) -> None:
        fields = event.fields
        key = (fields.get("processor", ""), fields.get("model", ""))
        if fields.get("kind") != "ttfb" or (key not in self._ttfb and len(self._ttfb) >= MAX_SERVICES):
            return
        found = self._ttfb.setdefault(key, [])
        if len(found) < MAX_TURNS and "seconds" in fields:
            found.append(fields["seconds"])

    def _on_service_usage(self, event: Event) -> None:
        fields = event.fields
        key = (fields.get("kind", ""), fields.get("processor", ""), fields.get("model", ""))
        if key not in self._usage and len(self._usage) >= MAX_SERVICES:
            return
        amounts = self._usage.setdefault(key, {})
        for name in AMOUNTS:
            if name in fields:
                amounts[name] = amounts.get(name, 0) + fields[name]

    def _on_error(self, event: Event) -> None:
        if len(self._errors) < MAX_ERRORS:
            self._errors.append({"at": iso(event.at), **{k: v for k, v in event.fields.items() if k != "timestamp"}})

    def _on_failure(self, event: Event) -> None:
        self._failure = event.fields

    def _on_webrtc_connected(self, event: Event) -> None:
        if self._connect is None:
            self._connect = event.fields.get("connect_secs")

    def _on_webrtc_stats(self, event: Event) -> None:
        peer = event.fields.get("peer", "")
        if peer in self._peers or len(self._peers) < MAX_PEERS:
            self._peers[peer] = event.fields

    def _webrtc(self) -> dict[str, Any] | None:
        if self._connect is None and not self._peers:
            return None
        peers = self._peers.values()
        return {
            "connect_seconds": _rounded(self._connect),
            "packets_received": sum(peer.get("packets_received", 0) for peer in peers),
            "packets_lost": sum(peer.get("packets_lost", 0) for peer in peers),
            "jitter_seconds": _rounded(max((peer.get("jitter_secs", 0) for peer in peers), default=None)),
        }

    def _on_process(self, event: Event) -> None:
        before = self._process or {"cpu_seconds": 0.0, "peak_memory_bytes": 0}
        self._process = {
            "cpu_seconds": round(before["cpu_seconds"] + event.fields.get("cpu_secs", 0.0), 3),
            "peak_memory_bytes": max(before["peak_memory_bytes"], event.fields.get("peak_memory_bytes", 0)),
            "shared": event.fields.get("shared", False),
        }

    def _on_transcript(self, event: Event) -> None:
        self._text_left -= len(event.fields.get("text", ""))
        if self._content and self._text_left >= 0:
            self._transcript.append(dict(event.fields))


def of_killed(head: Mapping[str, Any], at: float) -> dict[str, Any]:
    """The report of a call that ran when its launcher was killed, made by the next launcher."""
    admitted = Event("session_admitted", head.get("session_id"), {}, at)
    report = CallReport(admitted, content=False).end(
        Event("session_ended", admitted.session_id, {"outcome": "failed", "reason": KILLED}, at)
    )
    return {**report, **head, "seconds": None}


def percentiles(values: list[float]) -> dict[str, float | None]:
    """p50, p95 and p99 by the nearest rank."""
    ordered = sorted(values)
    if not ordered:
        return {"p50": None, "p95": None, "p99": None}
    ranks = {f"p{percent}": -(-percent * len(ordered) // 100) - 1 for percent in (50, 95, 99)}
    return {name: round(ordered[rank], 3) for name, rank in ranks.items()}


def iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)


def _named(key: tuple[str, str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    kind, processor, model = key
    return {"kind": kind, "processor": processor, "model": model or None, **values}
