"""Metrics for Prometheus. Labels are bounded, and never name a session.

Only the launcher counts, so that the sums are the same with a process for each call.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from pipecat_base import __version__
from pipecat_base.errors import refusal_codes
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.telemetry.events import Event

M = TypeVar("M", bound=MetricWrapperBase)

AMOUNTS = ("prompt_tokens", "completion_tokens", "characters", "audio_seconds")
MAX_AMOUNT_PER_EVENT = 10_000_000
MAX_PEERS_PER_SESSION = 20
MAX_LABEL_VALUES = 50
"""Of models, and of error categories; the rest are "other"."""
OTHER = "other"
SERVICES = ("stt", "llm", "tts")
ERROR_CATEGORIES = (
    "unknown",
    "authentication",
    "authorization",
    "invalid_request",
    "rate_limit",
    "quota",
    "connectivity",
    "server",
    "application",
)
"""Of pipecat's ErrorCategory."""

LATENCY_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0)
START_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DURATION_BUCKETS = (1, 5, 10, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200)
LAG_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
MEANINGS = {
    "sessions": "Sessions that have ended",
    "sessions_active": "Sessions that hold a slot now, also while they wait for their caller",
    "refusals": "Refused requests, by the code of the answer",
    "session_duration_seconds": "How long bots ran",
    "session_start_seconds": "From the request to the bot's first line; sessions that wait for a peer are not counted",
    "first_bot_speech_seconds": "From the client's connection to the bot's first speech",
    "user_bot_latency_seconds": "From the end of the user's speech to the start of the bot's",
    "service_ttfb_seconds": "A service's time to its first byte",
    "turns": "Turns of conversations",
    "tokens": "Tokens that language models read (in) and wrote (out)",
    "characters": "Characters turned into speech",
    "audio_seconds": "Audio that was transcribed (in), and speech of bots (out)",
    "errors": "Errors in pipelines, by pipecat's category",
    "webrtc_connect_seconds": "From a WebRTC offer to its connection",
    "webrtc_packets_received": "Audio packets of WebRTC callers that arrived",
    "webrtc_packets_lost": "Audio packets of WebRTC callers that did not arrive",
    "event_loop_lag_seconds": (
        "Longest delay of an event loop: the launcher's for each second, that of a call's process for each five seconds"
    ),
    "process_wait_seconds": "How long sessions waited for their process",
    "processes": "The bot's processes, with a process for each call; `idle` ones take the next calls",
    "state": "1 for the state that the launcher is in, 0 for the others",
    "places": "`MAX_SESSIONS`; +Inf without a limit",
    "build_info": "1; the labels say which versions run",
}
WHEN_BAD = {
    "sessions": "A rising share of `failed`: read the reports of failed calls, and the log under their ids.",
    "sessions_active": "Near `pipecat_places`: add pods, or raise `MAX_SESSIONS` if the machine can carry more.",
    "refusals": "Look the code up in [errors](errors.md): `at_capacity` and `no_process` turned callers away.",
    "session_duration_seconds": "Many of a few seconds: bots fail or callers hang up; compare with the outcomes.",
    "session_start_seconds": (
        "Processes start too slowly (`pipecat_process_wait_seconds`), or the event loop is blocked."
    ),
    "first_bot_speech_seconds": "The caller hears silence at first: greet with a fixed text, load models in `setup()`.",
    "user_bot_latency_seconds": (
        "`pipecat_service_ttfb_seconds` shows which service is slow; then look at the loop's lag."
    ),
    "service_ttfb_seconds": (
        "That service or model is slow: check the provider's status, its region, and your prompt's size."
    ),
    "turns": "Many interrupted: the bot talks too long, or hears its own voice or noise as speech.",
    "tokens": "`in` grows faster than the turns: contexts are not trimmed.",
    "characters": "Grows faster than the turns: the bot talks too long.",
    "audio_seconds": "`in` does not grow while sessions run: no audio arrives, or the transcription has stopped.",
    "errors": "The reports of the calls name the processor; the log has the exception.",
    "webrtc_connect_seconds": "UDP does not reach this machine directly: set `PIPECAT_ICE_SERVERS` to a TURN server.",
    "webrtc_packets_received": "Does not grow while WebRTC sessions run: no audio arrives.",
    "webrtc_packets_lost": "The network between callers and this machine, or a machine that is too busy to read.",
    "event_loop_lag_seconds": (
        "Over 0.1 s callers hear gaps: the bot blocks it (the log names the line), or the CPU is full."
    ),
    "process_wait_seconds": "Raise `PIPECAT_IDLE_PROCESSES`, or make the import and `setup()` faster.",
    "processes": "No `idle` for long: raise `PIPECAT_IDLE_PROCESSES`.",
    "state": "`starting` for minutes: `setup()` hangs. `draining` without a deployment: who sent SIGTERM?",
    "places": "+Inf in production: set a limit.",
}


@dataclass(frozen=True)
class MetricDescription:
    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    when_bad: str


class Metrics:
    """The event sink that counts."""

    def __init__(self) -> None:
        # They would double the number of series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._label_values: dict[str, set[str]] = {}
        # Packets received and lost so far, by session and peer: events hold the sums.
        self._packets: dict[str, dict[str, tuple[float, float]]] = {}
        self._descriptions: list[MetricDescription] = []
        ProcessCollector(registry=self.registry)
        self._sessions = self._counter("sessions", "sessions", "transport", "outcome")
        self._active = self._gauge("sessions_active", "sessions", "transport")
        self._refusals = self._counter("refusals", "requests", "reason")
        self._duration = self._histogram("session_duration_seconds", DURATION_BUCKETS, "transport")
        self._start = self._histogram("session_start_seconds", START_BUCKETS)
        self._first_speech = self._histogram("first_bot_speech_seconds", LATENCY_BUCKETS)
        self._latency = self._histogram("user_bot_latency_seconds", LATENCY_BUCKETS)
        self._ttfb = self._histogram("service_ttfb_seconds", LATENCY_BUCKETS, "kind", "model")
        self._turns = self._counter("turns", "turns", "interrupted")
        self._tokens = self._counter("tokens", "tokens", "direction")
        self._characters = self._counter("characters", "characters")
        self._audio = self._counter("audio_seconds", "seconds", "direction")
        self._errors = self._counter("errors", "errors", "category")
        self._connect = self._histogram("webrtc_connect_seconds", LATENCY_BUCKETS)
        self._packets_received = self._counter("webrtc_packets_received", "packets")
        self._packets_lost = self._counter("webrtc_packets_lost", "packets")
        self._lag = self._histogram("event_loop_lag_seconds", LAG_BUCKETS, "process")
        self._process_wait = self._histogram("process_wait_seconds", START_BUCKETS)
        self._processes = self._gauge("processes", "processes", "state")
        self._state = self._gauge("state", "", "state")
        self._slots = self._gauge("places", "sessions")
        self._info = self._gauge("build_info", "", "version", "python", "pipecat")
        self._begin_at_zero()
        self._handlers: dict[str, Callable[[Event], None]] = {
            "session_admitted": lambda event: self._active.labels(event.fields["transport"]).inc(),
            "session_running": self._running,
            "session_ended": self._ended,
            "refused": lambda event: self._refusals.labels(event.fields.get("reason", OTHER)).inc(),
            "turn": lambda event: self._turns.labels(str(bool(event.fields.get("interrupted"))).lower()).inc(),
            "user_bot_latency": lambda event: self._latency.observe(event.fields["latency_secs"]),
            "first_bot_speech_latency": lambda event: self._first_speech.observe(event.fields["latency_secs"]),
            "service_latency": self._service_latency,
            "service_usage": self._service_usage,
            "speech_event": self._speech,
            "error": lambda event: self._errors.labels(self._bounded("error", event.fields.get("category"))).inc(),
            "webrtc_connected": lambda event: self._connect.observe(event.fields["connect_secs"]),
            "webrtc_stats": self._webrtc_stats,
            "loop_lag": lambda event: self._lag.labels("launcher").observe(event.fields["lag_secs"]),
            "process_loop_lag": lambda event: self._lag.labels("call").observe(event.fields["lag_secs"]),
            "process_wait": lambda event: self._process_wait.observe(event.fields["wait_secs"]),
        }

    def describe(self, *, pipecat: str | None, slots: int | None) -> None:
        """Set the metrics that do not change."""
        self._info.labels(__version__, platform.python_version(), pipecat or "none").set(1)
        self._slots.set(float("inf") if slots is None else slots)

    def watch_state(self, states: Sequence[str], current: Callable[[], str]) -> None:
        for state in states:
            self._state.labels(state).set_function(lambda state=state: float(current() == state))  # type: ignore[misc]

    def watch_processes(self, count: Callable[[], Mapping[str, int]]) -> None:
        for state in count():
            self._processes.labels(state).set_function(lambda state=state: count()[state])  # type: ignore[misc]

    def handle(self, event: Event) -> None:
        handler = self._handlers.get(event.name)
        if handler is not None:
            handler(event)

    def close(self, within: float) -> None:
        pass

    def _begin_at_zero(self) -> None:
        """Show series before the first event: ``rate`` and ``increase`` would not count that one otherwise."""
        for transport in TransportKind:
            self._active.labels(transport.value)
            for outcome in Outcome:
                self._sessions.labels(transport.value, outcome.value)
        for reason in refusal_codes():
            self._refusals.labels(reason)
        for category in ERROR_CATEGORIES:
            self._errors.labels(self._bounded("error", category))
        for interrupted in ("true", "false"):
            self._turns.labels(interrupted)
        for process in ("launcher", "call"):
            self._lag.labels(process)
        for direction in ("in", "out"):
            self._tokens.labels(direction)
            self._audio.labels(direction)

    def _running(self, event: Event) -> None:
        if "start_secs" in event.fields:
            self._start.observe(event.fields["start_secs"])

    def _ended(self, event: Event) -> None:
        transport = event.fields["transport"]
        self._active.labels(transport).dec()
        self._sessions.labels(transport, event.fields["outcome"]).inc()
        if "duration_secs" in event.fields:
            self._duration.labels(transport).observe(event.fields["duration_secs"])
        self._packets.pop(event.session_id or "", None)

    def _service_latency(self, event: Event) -> None:
        if event.fields.get("kind") == "ttfb":
            labels = (service_of(event.fields.get("processor", "")), self._bounded("model", event.fields.get("model")))
            self._ttfb.labels(*labels).observe(event.fields["seconds"])

    def _service_usage(self, event: Event) -> None:
        amounts = {name: min(amount, MAX_AMOUNT_PER_EVENT) for name, amount in event.fields.items() if name in AMOUNTS}
        self._tokens.labels("in").inc(amounts.get("prompt_tokens", 0))
        self._tokens.labels("out").inc(amounts.get("completion_tokens", 0))
        self._characters.inc(amounts.get("characters", 0))
        self._audio.labels("in").inc(amounts.get("audio_seconds", 0))

    def _speech(self, event: Event) -> None:
        if event.fields.get("kind") == "bot_speech_stopped" and "started_at" in event.fields:
            self._audio.labels("out").inc(max(0.0, event.fields["timestamp"] - event.fields["started_at"]))

    def _webrtc_stats(self, event: Event) -> None:
        peers = self._packets.setdefault(event.session_id or "", {})
        peer = event.fields.get("peer", "")
        if peer not in peers and len(peers) >= MAX_PEERS_PER_SESSION:
            return
        before = peers.get(peer, (0, 0))
        received = max(before[0], event.fields.get("packets_received", 0))
        lost = max(before[1], event.fields.get("packets_lost", 0))
        self._packets_received.inc(received - before[0])
        self._packets_lost.inc(lost - before[1])
        peers[peer] = (received, lost)

    def _bounded(self, label: str, value: str | None) -> str:
        """Bound the number of series: a bot may make up any number of values."""
        if not value:
            return "none"
        values = self._label_values.setdefault(label, set())
        if value not in values and len(values) >= MAX_LABEL_VALUES:
            return OTHER
        values.add(value)
        return value

    def _counter(self, name: str, unit: str, *labels: str) -> Counter:
        return self._described(unit, Counter(f"pipecat_{name}", MEANINGS[name], labels, registry=self.registry))

    def _gauge(self, name: str, unit: str, *labels: str) -> Gauge:
        return self._described(unit, Gauge(f"pipecat_{name}", MEANINGS[name], labels, registry=self.registry))

    def _histogram(self, name: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        histogram = Histogram(f"pipecat_{name}", MEANINGS[name], labels, buckets=buckets, registry=self.registry)
        return self._described("seconds", histogram)

    def _described(self, unit: str, metric: M) -> M:
        name, kind = metric._name, str(metric._type)
        total = f"{name}_total" if kind == "counter" else name
        when_bad = WHEN_BAD.get(name.removeprefix("pipecat_"), "")
        labels, meaning = tuple(metric._labelnames), metric._documentation
        self._descriptions.append(MetricDescription(total, kind, unit, labels, meaning, when_bad))
        return metric

    def listed(self) -> list[MetricDescription]:
        """Descriptions of all metrics but those of the process."""
        return sorted(self._descriptions, key=lambda description: description.name)


def service_of(processor: str) -> str:
    """stt, llm or tts, by the processor's class name, with which pipecat's name of it begins."""
    lowered = processor.lower()
    return next((kind for kind in SERVICES if kind in lowered), OTHER)
