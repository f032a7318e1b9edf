"""Hides callers' data in pipecat's log lines: shows their words, and values that are known to be harmless.

pipecat logs phone numbers, custom parameters, bodies, messages and room tokens, at every level, on some three hundred
lines that change with each version. The words of a line are constants of the function that logs it; everything else is
a value, and is hidden unless :data:`HARMLESS` names it: ``Parsed - Type: twilio, Data: <...>``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import attrgetter
from types import CodeType, FrameType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipecat_base.logs.escaping import LONGEST_LINE, logged

if TYPE_CHECKING:
    from loguru import Record

# The modules that speak with callers and with their carriers.
MODULES = (
    "pipecat.runner.",
    "pipecat.transports.",
    "pipecat.serializers.",
    "pipecat.processors.frameworks.rtvi",
    "pipecat.services.heygen.",
    "pipecat.services.tavus.",
    "pipecat.services.ultravox.",
    "pipecat.extensions.ivr.",
)
# Variables with states, kinds, names of types, and the ids that providers give to calls.
# fmt: off
HARMLESS = (
    "self", "self._session_id", "self._conversation_id", "self._pc_id", "self._host", "self._port",
    "self._broadcast_path", "self._peer_broadcast_path", "self._ws_close_timeout", "self._redial_attempt",
    "self._sample_rate", "self._track.kind", "self._pc.iceConnectionState", "self._pc.connectionState",
    "self._pc.iceGatheringState", "self._websocket.application_state", "call.id", "call.status", "call.duration",
    "session.id", "stream.id", "response.status", "e.__class__.__name__", "callback.__name__", "track.kind",
    "track.sid", "track_pub.kind", "track_pub.sid", "publication.sid", "participant.sid", "frame.format",
    "file.format", "pc_id", "webrtc_connection.pc_id", "pipecat_connection.pc_id", "existing_connection.pc_id",
    "call_id", "call_sid", "call_control_id", "session_id", "stream_id", "stream_sid", "meeting_id",
    "conversation_id", "agent_id", "replica_id", "persona_id", "transport_type", "transport_key", "state", "width",
    "height", "code", "action", "enabled", "sample_rate", "video_source", "audio_source", "event_name",
    "idle_duration", "provider",
)
# fmt: on
HIDDEN = "<...>"
_WORDS = re.compile(r"[^\w*#+]|(?=.*\W)..+", re.DOTALL)
_HIDDEN_LIST = re.compile(rf"{HIDDEN}(?:\W{{0,3}}{HIDDEN})+")


def hide_caller_data(record: Record) -> None:
    """Never raises: pipecat's own code would get the exception."""
    if not (record["name"] or "").startswith(MODULES):
        return
    try:
        frame = _frame_of(record)
        message = HIDDEN if frame is None else shown(record["message"], frame.f_code, frame)
        record["message"] = logged(message, LONGEST_LINE)
    except Exception:
        record["message"] = HIDDEN


def _frame_of(record: Record) -> FrameType | None:
    frame: FrameType | None = sys._getframe()
    path, line = record["file"].path, record["line"]
    while frame is not None and (frame.f_lineno != line or frame.f_code.co_filename != path):
        frame = frame.f_back
    return frame


def shown(message: str, code: CodeType, frame: FrameType | None = None) -> str:
    """The message as the log may show it; ``code`` is the function that logs it, ``frame`` its call."""
    if message in code.co_consts:
        return message
    words, harmless = _constants_of(code)
    parts = words.split(message)  # values at even indexes, words at odd ones
    if any(parts[::2]):
        values = _values(harmless, {} if frame is None else frame.f_locals)
        parts[::2] = [part if not part or part in values else HIDDEN for part in parts[::2]]
    return _HIDDEN_LIST.sub(HIDDEN, "".join(parts))


@lru_cache(1024)
def _constants_of(code: CodeType) -> tuple[re.Pattern[str], tuple[str, ...]]:
    # a single word may be a key of the data, and most single characters a key of the phone.
    words = {c for c in code.co_consts if isinstance(c, str) and _WORDS.fullmatch(c)}
    pattern = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    variables = {*code.co_varnames, *code.co_cellvars, *code.co_freevars}
    attributes = set(code.co_names)
    harmless = (path for path in HARMLESS if path.partition(".")[0] in variables)
    return re.compile(f"({pattern or '(?!)'})"), tuple(p for p in harmless if attributes.issuperset(p.split(".")[1:]))


def _values(paths: Iterable[str], variables: Mapping[str, Any]) -> set[str]:
    names, found = SimpleNamespace(**variables), set()
    for path in paths:
        try:
            found.add(str(attrgetter(path)(names)))
        except AttributeError:
            continue  # not assigned yet, or None
    return found
