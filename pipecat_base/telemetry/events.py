"""Every fact that is told of a session: its name, its fields, and what the platform's event publisher gets of it.

Those of pipecat's observers have the names and the fields of the platform's events; all times are Unix seconds, all
durations seconds. Fields are an allow-list: a bot's process is not trusted to send anything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

LONGEST_TEXT = 256
"""Characters of a text, but for transcripts: what the platform's publisher takes."""
LONGEST_TRANSCRIPT = 10_000
MOST_ENTRIES = 100
"""Of a list, such as the processors of a pipeline."""

LARGEST = 1e10
"""Of a number: a Unix time has as many digits."""
SKEW = 60.0
"""Seconds between now and when a process says that something has happened."""

Check = Callable[[Any], Any]
"""The value as it may be told, or None."""


def text(value: Any) -> str | None:
    """A short text, of characters that can be written everywhere."""
    return _sound(value[:LONGEST_TEXT]) if isinstance(value, str) else None


def transcript(value: Any) -> str | None:
    """What somebody has said."""
    return _sound(value[:LONGEST_TRANSCRIPT]) if isinstance(value, str) and value.strip() else None


def _sound(value: str) -> str:
    """Without half a surrogate pair, which cannot be encoded."""
    return value.encode(errors="replace").decode()


def number(value: Any) -> float | None:
    """A number that can be meant: all that is told are amounts, durations and times."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= LARGEST else None  # no NaN is


def truth(value: Any) -> bool | None:
    """True or false."""
    return value if isinstance(value, bool) else None


@dataclass(frozen=True)
class Object:
    """An object with these fields."""

    fields: Mapping[str, Check]

    def __call__(self, value: Any) -> dict[str, Any] | None:
        return select(value, self.fields) if isinstance(value, Mapping) else None


@dataclass(frozen=True)
class ListOf:
    """A list of objects with these fields."""

    fields: Mapping[str, Check]

    def __call__(self, value: Any) -> list[dict[str, Any]] | None:
        if not isinstance(value, list | tuple):
            return None
        return [select(entry, self.fields) for entry in value[:MOST_ENTRIES] if isinstance(entry, Mapping)]


def each_of(**fields: Check) -> Check:
    """An object with these fields."""
    return Object(fields)


def all_of(**fields: Check) -> Check:
    """A list of objects with these fields."""
    return ListOf(fields)


def select(values: Mapping[str, Any], fields: Mapping[str, Check]) -> dict[str, Any]:
    """Those of ``values`` that are allowed and known."""
    found = {name: check(values[name]) for name, check in fields.items() if values.get(name) is not None}
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class EventKind:
    """One kind of fact.

    Attributes:
        meaning: When it is told, in words.
        is_event: Whether the platform's event publisher gets it.
        has_content: Whether it holds what was said.
    """

    meaning: str
    fields: Mapping[str, Check]
    is_event: bool = False
    has_content: bool = False


@dataclass(frozen=True)
class Event:
    """Something that has happened.

    Attributes:
        session_id: None for what is of no session.
        at: When, in Unix seconds.
    """

    name: str
    session_id: str | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    at: float = field(default_factory=time.time)


EVENT_KINDS: Mapping[str, EventKind] = {
    "session_admitted": EventKind("A session was admitted: it holds a place", {"transport": text, "peer": text}),
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
        "What arrived from a WebRTC peer since it connected; told every ten seconds and at the end",
        {"packets_received": number, "packets_lost": number, "jitter_secs": number, "peer": text},
    ),
    "process": EventKind(
        "What the session's process used; `shared`: one process runs all sessions, and the figures are of all",
        {"cpu_secs": number, "peak_memory_bytes": number, "shared": truth},
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
        "Told once in a session: what it runs on",
        {"pipecat_version": text, "python_version": text, "image_version": text, "arch": text},
        is_event=True,
    ),
    "startup_timing": EventKind(
        "A pipeline has started",
        {
            "start_time": number,
            "total_duration_secs": number,
            "setup_phase_secs": number,
            "start_phase_secs": number,
            "processor_timings": all_of(
                processor_name=text,
                start_offset_secs=number,
                duration_secs=number,
                setup_duration_secs=number,
                start_duration_secs=number,
            ),
            "warmup": each_of(duration_secs=number, blocking_duration_secs=number),
        },
        is_event=True,
    ),
    "transport_timing": EventKind(
        "The transport is connected",
        {"start_time": number, "bot_connected_secs": number, "client_connected_secs": number},
        is_event=True,
    ),
    "user_bot_latency": EventKind(
        "The bot starts to speak; seconds since the user stopped",
        {"latency_secs": number, "timestamp": number},
        is_event=True,
    ),
    "first_bot_speech_latency": EventKind(
        "The bot speaks for the first time; seconds since the client connected",
        {"latency_secs": number, "timestamp": number},
        is_event=True,
    ),
    "latency_breakdown": EventKind(
        "The parts of a user-bot latency",
        {
            "measured_from": text,
            "total_secs": number,
            "user_turn_start_time": number,
            "user_turn_secs": number,
            "contributions": all_of(
                key=text, label=text, owner=text, owner_kind=text, start_time=number, duration_secs=number
            ),
            "ttfb": all_of(processor=text, model=text, start_time=number, duration_secs=number),
            "text_aggregation": each_of(processor=text, start_time=number, duration_secs=number),
            "function_calls": all_of(function_name=text, start_time=number, duration_secs=number),
        },
        is_event=True,
    ),
    "service_latency": EventKind(
        "A service measured how long it took; `kind` says what, `ttfb` for one",
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
        is_event=True,
    ),
    "service_usage": EventKind(
        "A service counted what it used",
        {
            "kind": text,
            "processor": text,
            "model": text,
            "timestamp": number,
            "audio_seconds": number,
            "characters": number,
            "prompt_tokens": number,
            "completion_tokens": number,
            "total_tokens": number,
            "cache_read_input_tokens": number,
            "cache_creation_input_tokens": number,
            "reasoning_tokens": number,
            "input_audio_tokens": number,
            "output_audio_tokens": number,
            "cache_read_input_audio_tokens": number,
        },
        is_event=True,
    ),
    "speech_event": EventKind(
        "Someone starts or stops speaking, or interrupts; `kind` says which",
        {"kind": text, "timestamp": number, "started_at": number},
        is_event=True,
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
        is_event=True,
    ),
    "error": EventKind(
        "A processor failed; never the text of the error",
        {
            "category": text,
            "exception_type": text,
            "processor": text,
            "processor_usable": truth,
            "timestamp": number,
        },
        is_event=True,
    ),
    "transcript": EventKind(
        "What was said in a turn",
        {
            "role": text,
            "text": transcript,
            "turn_started_at": text,
            "interrupted": truth,
            "timestamp": number,
        },
        is_event=True,
        has_content=True,
    ),
}


LAUNCHER_EVENTS = ("session_admitted", "session_running", "session_ended", "refused", "process_wait", "loop_lag")
"""What no process that runs a bot is believed."""


def make_event(name: str, session_id: str | None, fields: Mapping[str, Any], at: float | None = None) -> Event | None:
    """The fact, of what is allowed in it; None where there is no such kind."""
    kind = EVENT_KINDS.get(name)
    if kind is None:
        return None
    now = time.time()
    said = number(at)
    return Event(
        name, session_id, select(fields, kind.fields), now if said is None or abs(now - said) > SKEW else float(said)
    )
