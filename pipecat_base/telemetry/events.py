"""Every event of a session: its name, its fields, and whether the platform's event publisher gets it.

Names and fields of pipecat's events are the platform's. Times are Unix seconds, durations seconds. Fields are an
allow-list: a worker is not trusted to send anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_TEXT_CHARACTERS = 256
"""The platform's publisher takes no more."""
MAX_TRANSCRIPT_CHARACTERS = 10_000
MAX_LIST_ENTRIES = 100
MAX_NUMBER = 1e10  # a Unix time has as many digits
MAX_CLOCK_SKEW_SECONDS = 60.0
AMOUNTS = (
    "audio_seconds",
    "characters",
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
    "cache_read_input_audio_tokens",
)
"""Fields of ``service_usage`` that can be added up."""

Check = Callable[[Any], Any]
"""Returns the value of a field as it may be emitted, or None."""


def text(value: Any) -> str | None:
    return _encodable(value[:MAX_TEXT_CHARACTERS]) if isinstance(value, str) else None


def transcript(value: Any) -> str | None:
    return _encodable(value[:MAX_TRANSCRIPT_CHARACTERS]) if isinstance(value, str) and value.strip() else None


def _encodable(value: str) -> str:
    return value.encode(errors="replace").decode()  # halves of surrogate pairs cannot be written


def number(value: Any) -> float | None:
    """Nothing negative, no NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= MAX_NUMBER else None


def truth(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


class _WithFields:
    def __init__(self, **fields: Check) -> None:
        self.fields = fields


class Object(_WithFields):
    def __call__(self, value: Any) -> dict[str, Any] | None:
        return select(value, self.fields) if isinstance(value, Mapping) else None


class ListOf(_WithFields):
    def __call__(self, value: Any) -> list[dict[str, Any]] | None:
        if not isinstance(value, list | tuple):
            return None
        return [select(entry, self.fields) for entry in value[:MAX_LIST_ENTRIES] if isinstance(entry, Mapping)]


def select(values: Mapping[str, Any], fields: Mapping[str, Check]) -> dict[str, Any]:
    """The allowed and valid fields among ``values``."""
    found = {name: check(values[name]) for name, check in fields.items() if values.get(name) is not None}
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class EventKind:
    """``is_published``: the platform's event publisher gets it. ``has_content``: it holds words of the conversation."""

    meaning: str
    fields: Mapping[str, Check]
    is_published: bool = False
    has_content: bool = False


@dataclass(frozen=True)
class Event:
    name: str
    session_id: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


EVENT_KINDS: Mapping[str, EventKind] = {
    "session_admitted": EventKind("A session was admitted: it holds a slot", {"transport": text, "peer": text}),
    "session_running": EventKind(
        "The bot's first line runs; `start_secs` after the admission, missing where the session waited for a peer",
        {"transport": text, "start_secs": number},
    ),
    "session_ended": EventKind(
        "The session is over, and everything it held is closed",
        {"transport": text, "outcome": text, "reason": text, "duration_secs": number},
    ),
    "refused": EventKind("A request was refused; `reason` is the code of the answer", {"reason": text}),
    "caller": EventKind(
        "A phone provider's first messages named the provider and its own id of the call",
        {"provider": text, "call_id": text},
    ),
    "turn": EventKind(
        "A turn of the conversation is over", {"number": number, "duration_secs": number, "interrupted": truth}
    ),
    "webrtc_connected": EventKind("A WebRTC peer is connected", {"connect_secs": number}),
    "webrtc_stats": EventKind(
        "Packets that arrived from a WebRTC peer since it connected; emitted every ten seconds and at the end",
        {"packets_received": number, "packets_lost": number, "jitter_secs": number, "peer": text},
    ),
    "process": EventKind(
        "Resources that the session's process used; `shared`: one process runs all sessions, and these are the sums",
        {"cpu_secs": number, "peak_memory_bytes": number, "shared": truth},
    ),
    "resources": EventKind(
        "What the session's process uses, emitted every five seconds: CPU since the last such event, and memory",
        {"cpu_millicores": number, "memory_bytes": number},
    ),
    "process_wait": EventKind("A session got its process; `wait_secs` is how long it waited", {"wait_secs": number}),
    "failure": EventKind(
        "The session's bot or its process failed; `where` is the bot's own line",
        {"exception_type": text, "where": text},
    ),
    "loop_lag": EventKind("How late the launcher's event loop was at worst in the last second", {"lag_secs": number}),
    "process_loop_lag": EventKind(
        "How late the event loop of a call's process was at worst in the last five seconds", {"lag_secs": number}
    ),
    "session_info": EventKind(
        "Emitted once in a session: the versions that it runs on",
        {"pipecat_version": text, "python_version": text, "image_version": text, "arch": text},
        is_published=True,
    ),
    "startup_timing": EventKind(
        "A pipeline has started",
        {
            "start_time": number,
            "total_duration_secs": number,
            "setup_phase_secs": number,
            "start_phase_secs": number,
            "processor_timings": ListOf(
                processor_name=text,
                start_offset_secs=number,
                duration_secs=number,
                setup_duration_secs=number,
                start_duration_secs=number,
            ),
            "warmup": Object(duration_secs=number, blocking_duration_secs=number),
        },
        is_published=True,
    ),
    "transport_timing": EventKind(
        "The transport is connected",
        {"start_time": number, "bot_connected_secs": number, "client_connected_secs": number},
        is_published=True,
    ),
    "user_bot_latency": EventKind(
        "The bot starts to speak; seconds since the user stopped",
        {"latency_secs": number, "timestamp": number},
        is_published=True,
    ),
    "first_bot_speech_latency": EventKind(
        "The bot speaks for the first time; seconds since the client connected",
        {"latency_secs": number, "timestamp": number},
        is_published=True,
    ),
    "latency_breakdown": EventKind(
        "The parts of a user-bot latency",
        {
            "measured_from": text,
            "total_secs": number,
            "user_turn_start_time": number,
            "user_turn_secs": number,
            "contributions": ListOf(
                key=text, label=text, owner=text, owner_kind=text, start_time=number, duration_secs=number
            ),
            "ttfb": ListOf(processor=text, model=text, start_time=number, duration_secs=number),
            "text_aggregation": Object(processor=text, start_time=number, duration_secs=number),
            "function_calls": ListOf(function_name=text, start_time=number, duration_secs=number),
        },
        is_published=True,
    ),
    "service_latency": EventKind(
        "A service measured how long it took; `kind` says what was measured, such as `ttfb`",
        {
            "kind": text,
            "processor": text,
            "model": text,
            "timestamp": number,
            "seconds": number,
            "ttfb_secs": number,
            "leading_silence_secs": number,
            "thinking_time_secs": number,
        },
        is_published=True,
    ),
    "service_usage": EventKind(
        "A service counted its usage",
        {
            "kind": text,
            "processor": text,
            "model": text,
            "timestamp": number,
            **dict.fromkeys(AMOUNTS, number),
        },
        is_published=True,
    ),
    "speech_event": EventKind(
        "Someone starts or stops speaking, or interrupts; `kind` says which",
        {"kind": text, "timestamp": number, "started_at": number},
        is_published=True,
    ),
    "function_call_event": EventKind(
        "A function call began or ended; never its arguments or its result",
        {
            "kind": text,
            "function_name": text,
            "tool_call_id": text,
            "group_id": text,
            "blocking": truth,
            "timestamp": number,
            "started_at": number,
            "in_progress_at": number,
        },
        is_published=True,
    ),
    "error": EventKind(
        "A processor failed; never the text of the error",
        {"category": text, "exception_type": text, "processor": text, "processor_usable": truth, "timestamp": number},
        is_published=True,
    ),
    "transcript": EventKind(
        "The text of a turn",
        {"role": text, "text": transcript, "turn_started_at": text, "interrupted": truth, "timestamp": number},
        is_published=True,
        has_content=True,
    ),
}


LAUNCHER_EVENTS = ("session_admitted", "session_running", "session_ended", "refused", "process_wait", "loop_lag")
"""Ignored when a worker sends them."""


def make_event(name: str, session_id: str | None, fields: Mapping[str, Any], at: float | None = None) -> Event | None:
    """An event with the allowed fields, at a time that is plausible; None if there is no such kind."""
    kind = EVENT_KINDS.get(name)
    if kind is None:
        return None
    now, given = time.time(), number(at)
    happened_at = now if given is None or abs(now - given) > MAX_CLOCK_SKEW_SECONDS else float(given)
    return Event(name, session_id, select(fields, kind.fields), happened_at)
