"""Scenarios: a TOML file of recordings that the caller says, each after the one before, once its condition holds.

[[say]]
wav = "question.wav"  # beside the file
answered = 0.8        # the bot has answered, and has been silent for 0.8 s; or at, or interrupt
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipecat_base.cli.call import audio, echo
from pipecat_base.cli.call.audio import Samples
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.track import FRAME_SECONDS

CONDITIONS = ("at", "answered", "interrupt")
TURN_TIMEOUT_SECONDS = 15.0
ECHO_TAIL_SECONDS = 1.0
ANSWER_TIMEOUT_SECONDS = 10.0
ANSWER_PAUSE_SECONDS = 1.5  # of silence, after which the last answer is over
MAX_ANSWER_SECONDS = 60.0
CHUNK_FRAMES = 10  # a bot may answer in pieces of several frames: multiples of 200 ms come back whole


@dataclass(frozen=True)
class Turn:
    name: str
    samples: Samples
    condition: str = "at"
    seconds: float = 0.0

    def resampled(self, rate: int, target: int) -> Turn:
        return replace(self, samples=audio.resample(self.samples, rate, target))


@dataclass(frozen=True)
class Script:
    turns: tuple[Turn, ...]
    rate: int

    def at_rate(self, rate: int) -> Script:
        return Script(tuple(turn.resampled(self.rate, rate) for turn in self.turns), rate)


def from_wav(path: str) -> Script:
    samples, rate = audio.read_wav(path)
    return Script((Turn(path, samples),), rate)


def from_file(path: str) -> Script:
    """Read a scenario, at the rate of its first recording; CallError, OSError or ValueError if that fails."""
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CallError(f"{path} is not TOML: {error}") from None
    listed = content.get("say")
    if not isinstance(listed, list) or not listed or set(content) != {"say"}:
        raise CallError(f"{path}: expected nothing but [[say]] tables, at least one")
    turns = [_turn(path, number, entry) for number, entry in enumerate(listed, 1)]
    first = turns[0][1]
    return Script(tuple(turn.resampled(rate, first) for turn, rate in turns), first)


def _turn(path: str, number: int, entry: Any) -> tuple[Turn, int]:
    where = f"{path}: [[say]] number {number}"
    if not isinstance(entry, dict) or not isinstance(entry.get("wav"), str):
        raise CallError(f'{where} has no wav = "FILE.wav"')
    conditions = [name for name in entry if name != "wav"]
    if len(conditions) != 1 or conditions[0] not in CONDITIONS:
        raise CallError(f"{where} needs wav and exactly one of {', '.join(CONDITIONS)}")
    seconds = entry[conditions[0]]
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= 3600:
        raise CallError(f"{where}: {conditions[0]} is not a number of seconds (0 to 3600)")
    samples, rate = audio.read_wav(str(Path(path).parent / entry["wav"]))
    return Turn(entry["wav"], samples, conditions[0], float(seconds)), rate


class Tail:
    """Decides when to hang up after the last word: after so many seconds, or after the bot's answer or echo."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._is_echo: bool | None = None  # of all calls, which share a tail

    def is_over(self, call: CallFigures, ended: float, now: float) -> bool:
        since = now - ended
        if self._seconds is not None:
            return since >= self._seconds
        if since < ECHO_TAIL_SECONDS or since > MAX_ANSWER_SECONDS:
            return since > MAX_ANSWER_SECONDS
        if self._is_echo is None:
            self._is_echo = echo.find(call.said, call.heard) is not None
        if self._is_echo:
            return True
        spoken, answer = call.said.last(now), call.heard.last(now)
        if answer is None or answer.end <= (ended if spoken is None else spoken.end):
            return since >= ANSWER_TIMEOUT_SECONDS
        return now - answer.end >= ANSWER_PAUSE_SECONDS


class Speaker:
    def __init__(self, script: Script, call: CallFigures, tail: Tail) -> None:
        self._call = call
        self._tail = tail
        self._waiting = list(script.turns)
        self._turn: Turn | None = None
        self._position = 0
        self._ended = 0.0
        self._frame_size = round(script.rate * FRAME_SECONDS)

    def next(self) -> Samples:
        """The next 20 ms: speech, or silence."""
        now = self._now
        if self._turn is None and self._waiting and self._is_due(self._waiting[0], now):
            self._turn, self._position = self._waiting.pop(0), 0
        frame = np.zeros(self._frame_size, np.int16)
        if self._turn is not None:
            part = self._turn.samples[self._position : self._position + self._frame_size]
            frame[: len(part)] = part
            self._position += self._frame_size
            if self._position >= len(self._turn.samples):
                self._turn, self._ended = None, now + FRAME_SECONDS
        self._call.said.add(frame, now)
        self._call.sent += 1
        return frame

    @property
    def finished(self) -> bool:
        """True when everything was said and answered, or when the bot does not do what a turn waits for."""
        if self._turn is not None or self._call.sent % CHUNK_FRAMES:
            return False
        if self._waiting:
            return self._gives_up(self._waiting[0])
        return self._tail.is_over(self._call, self._ended, self._now)

    @property
    def _now(self) -> float:
        return self._call.sent * FRAME_SECONDS  # as the bot's clock is: by frames

    def _is_due(self, turn: Turn, now: float) -> bool:
        if turn.condition == "at":
            return now >= turn.seconds
        speech = self._call.heard.last(now)
        if speech is None or speech.end <= self._ended:
            return False
        if turn.condition == "answered":
            return now - speech.end >= turn.seconds
        return speech.start + turn.seconds <= now < speech.end + FRAME_SECONDS

    def _gives_up(self, turn: Turn) -> bool:
        if turn.condition == "at":
            return False
        speech = self._call.heard.last(self._now)
        quiet = self._now - max(self._ended, 0.0 if speech is None else speech.end)
        if quiet < TURN_TIMEOUT_SECONDS and self._now - self._ended < MAX_ANSWER_SECONDS:
            return False
        self._call.unsaid = [each.name for each in self._waiting]
        return True
