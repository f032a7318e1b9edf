"""Metrics for Prometheus, on a port of their own. Labels are bounded, and never name a session.

Sums are made where facts are read, in the launcher: they are the same with a process for each call.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from pipecat_base import __version__
from pipecat_base.errors import refusal_codes
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.telemetry.events import Event

AMOUNTS = ("prompt_tokens", "completion_tokens", "characters", "audio_seconds")
MOST_AT_ONCE = 10_000_000
"""Of one piece of work."""
MOST_PEERS = 20
"""Of one session, whose packets are counted."""
MOST_NAMES = 50
"""Of models, and of categories of errors, that become labels; the rest are "other"."""
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
"""pipecat's own."""

LATENCIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 20.0)
STARTS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DURATIONS = (1, 5, 10, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200)
LAGS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True)
class Listed:
    """A metric, for the documentation."""

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    meaning: str
    when_bad: str


class Metrics:
    """Reads facts into metrics.

    Attributes:
        registry: What a scrape shows.
    """

    def __init__(self) -> None:
        # One more series for each, which nobody asks for.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._names: dict[str, set[str]] = {}
        """Labels so far that bots have named, by what they are of."""
        self._packets: dict[str, dict[str, tuple[float, float]]] = {}
        """Packets received and lost so far, of each session by peer: facts hold the sums."""
        self._notes: dict[str, tuple[str, str]] = {}
        """Of each metric its unit, and what to do when it is bad."""
        ProcessCollector(registry=self.registry)
        self._sessions = self._counter(
            "sessions",
            "Sessions that have ended",
            "transport",
            "outcome",
            unit="sessions",
            when_bad="A rising share of `failed`: read the reports of failed calls, and the log under their ids.",
        )
        self._active = self._gauge(
            "sessions_active",
            "Sessions that hold a place now, also while they wait for their caller",
            "transport",
            unit="sessions",
            when_bad="Near `pipecat_places`: add pods, or raise `MAX_SESSIONS` if the machine can carry more.",
        )
        self._refusals = self._counter(
            "refusals",
            "Refused requests, by the code of the answer",
            "reason",
            unit="requests",
            when_bad="Look the code up in [errors](errors.md): `at_capacity` and `no_process` turned callers away.",
        )
        self._duration = self._histogram(
            "session_duration_seconds",
            "How long bots ran",
            DURATIONS,
            "transport",
            when_bad="Many of a few seconds: bots fail or callers hang up; compare with the outcomes.",
        )
        self._start = self._histogram(
            "session_start_seconds",
            "From the request to the bot's first line; sessions that wait for a peer are not counted",
            STARTS,
            when_bad="Processes start too slowly (`pipecat_process_wait_seconds`), or the event loop is blocked.",
        )
        self._first_speech = self._histogram(
            "first_bot_speech_seconds",
            "From the client's connection to the bot's first speech",
            LATENCIES,
            when_bad="The caller hears silence at first: greet with a fixed text, load models in `setup()`.",
        )
        self._latency = self._histogram(
            "user_bot_latency_seconds",
            "From the end of the user's speech to the start of the bot's",
            LATENCIES,
            when_bad="`pipecat_service_ttfb_seconds` shows which service is slow; then look at the loop's lag.",
        )
        self._ttfb = self._histogram(
            "service_ttfb_seconds",
            "A service's time to its first byte",
            LATENCIES,
            "kind",
            "model",
            when_bad="That service or model is slow: check the provider's status, its region, and your prompt's size.",
        )
        self._turns = self._counter(
            "turns",
            "Turns of conversations",
            "interrupted",
            unit="turns",
            when_bad="Many interrupted: the bot talks too long, or hears its own voice or noise as speech.",
        )
        self._tokens = self._counter(
            "tokens",
            "Tokens that language models read (in) and wrote (out)",
            "direction",
            unit="tokens",
            when_bad="`in` grows faster than the turns: contexts are not trimmed.",
        )
        self._characters = self._counter(
            "characters",
            "Characters turned into speech",
            unit="characters",
            when_bad="Grows faster than the turns: the bot talks too long.",
        )
        self._audio = self._counter(
            "audio_seconds",
            "Audio that was transcribed (in), and speech of bots (out)",
            "direction",
            unit="seconds",
            when_bad="`in` stands still while sessions run: no audio arrives, or the transcription has stopped.",
        )
        self._errors = self._counter(
            "errors",
            "Errors in pipelines, by pipecat's category",
            "category",
            unit="errors",
            when_bad="The reports of the calls name the processor; the log has the exception.",
        )
        self._connect = self._histogram(
            "webrtc_connect_seconds",
            "From a WebRTC offer to its connection",
            LATENCIES,
            when_bad="UDP does not reach this machine directly: set `PIPECAT_ICE_SERVERS` to a TURN server.",
        )
        self._packets_received = self._counter(
            "webrtc_packets_received",
            "Audio packets of WebRTC callers that arrived",
            unit="packets",
            when_bad="Stands still while WebRTC sessions run: nobody is heard.",
        )
        self._packets_lost = self._counter(
            "webrtc_packets_lost",
            "Audio packets of WebRTC callers that did not arrive",
            unit="packets",
            when_bad="The network between callers and this machine, or a machine that is too busy to read.",
        )
        self._lag = self._histogram(
            "event_loop_lag_seconds",
            "How late an event loop was at worst: the launcher's in each second, that of a call's process in each five",
            LAGS,
            "process",
            when_bad="Over 0.1 s callers hear gaps: the bot blocks it (the log names the line), or the CPU is full.",
        )
        self._process_wait = self._histogram(
            "process_wait_seconds",
            "How long sessions waited for their process",
            STARTS,
            when_bad="Raise `PIPECAT_IDLE_PROCESSES`, or make the import and `setup()` faster.",
        )
        self._processes = self._gauge(
            "processes",
            "The bot's processes, with a process for each call; `idle` ones take the next calls",
            "state",
            unit="processes",
            when_bad="No `idle` for long: raise `PIPECAT_IDLE_PROCESSES`.",
        )
        self._state = self._gauge(
            "state",
            "1 for the state that the launcher is in, 0 for the others",
            "state",
            when_bad="`starting` for minutes: `setup()` hangs. `draining` without a deployment: who sent SIGTERM?",
        )
        self._slots = self._gauge(
            "places",
            "`MAX_SESSIONS`; +Inf without a limit",
            unit="sessions",
            when_bad="+Inf in production: set a limit.",
        )
        info = self._gauge("build_info", "1; the labels say which versions run", "version", "python", "pipecat")
        self._info = info
        self._begin_at_zero()
        self._readers: dict[str, Callable[[Event], None]] = {
            "session_admitted": self._admitted,
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
        """What does not change."""
        self._info.labels(__version__, platform.python_version(), pipecat or "none").set(1)
        self._slots.set(float("inf") if slots is None else slots)

    def watch_state(self, states: Sequence[str], current: Callable[[], str]) -> None:
        """Ask for the launcher's state at each scrape."""
        for state in states:
            self._state.labels(state).set_function(lambda state=state: float(current() == state))  # type: ignore[misc]

    def watch_processes(self, count: Callable[[], Mapping[str, int]]) -> None:
        """Ask for the number of processes at each scrape."""
        for state in count():
            self._processes.labels(state).set_function(lambda state=state: count()[state])  # type: ignore[misc]

    def read(self, event: Event) -> None:
        """One more."""
        reader = self._readers.get(event.name)
        if reader is not None:
            reader(event)

    def close(self, within: float) -> None:
        """Nothing is under way."""

    def _begin_at_zero(self) -> None:
        """Show what can be counted before it happens: no rate or increase would see the first one otherwise."""
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

    def _admitted(self, event: Event) -> None:
        self._active.labels(event.fields["transport"]).inc()

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
        amounts = {name: min(amount, MOST_AT_ONCE) for name, amount in event.fields.items() if name in AMOUNTS}
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
        if peer not in peers and len(peers) >= MOST_PEERS:
            return
        before = peers.get(peer, (0, 0))
        received = max(before[0], event.fields.get("packets_received", 0))
        lost = max(before[1], event.fields.get("packets_lost", 0))
        self._packets_received.inc(received - before[0])
        self._packets_lost.inc(lost - before[1])
        peers[peer] = (received, lost)

    def _bounded(self, what: str, name: str | None) -> str:
        """As a label: a bot may make up as many names as it likes."""
        if not name:
            return "none"
        names = self._names.setdefault(what, set())
        if name not in names and len(names) >= MOST_NAMES:
            return OTHER
        names.add(name)
        return name

    def _counter(self, name: str, text: str, *labels: str, unit: str = "", when_bad: str = "") -> Counter:
        self._notes[f"pipecat_{name}"] = (unit, when_bad)
        return Counter(f"pipecat_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str, unit: str = "", when_bad: str = "") -> Gauge:
        self._notes[f"pipecat_{name}"] = (unit, when_bad)
        return Gauge(f"pipecat_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str, when_bad: str) -> Histogram:
        self._notes[f"pipecat_{name}"] = ("seconds", when_bad)
        return Histogram(f"pipecat_{name}", text, labels, buckets=buckets, registry=self.registry)

    def listed(self) -> list[Listed]:
        """Every metric but those of the process, for the documentation."""
        found = [value for value in vars(self).values() if isinstance(value, MetricWrapperBase)]
        return sorted(
            (
                Listed(
                    f"{metric._name}_total" if metric._type == "counter" else metric._name,
                    str(metric._type),
                    self._notes[metric._name][0],
                    tuple(metric._labelnames),
                    metric._documentation,
                    self._notes[metric._name][1],
                )
                for metric in found
            ),
            key=lambda listed: listed.name,
        )


def service_of(processor: str) -> str:
    """stt, llm or tts, by the name that pipecat gives a processor: that of its class."""
    lowered = processor.lower()
    return next((kind for kind in SERVICES if kind in lowered), OTHER)
