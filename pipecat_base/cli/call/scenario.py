"""What the caller says, and when.

A scenario is a TOML file. Its turns are said in their order, each once the one before has ended:

    [[say]]
    wav = "hello.wav"     # 16-bit PCM; beside the scenario
    at = 0.5              # at this second of the call

    [[say]]
    wav = "question.wav"
    answered = 0.8        # once the bot has answered, and has been silent for 0.8 s

    [[say]]
    wav = "wait.wav"
    interrupt = 1.0       # once the bot has spoken for 1 s: does it stop?
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipecat_base.cli.call import audio, echo
from pipecat_base.cli.call.figures import CallError, CallFigures
from pipecat_base.cli.call.track import FRAME_SECONDS

CONDITIONS = ("at", "answered", "interrupt")
PATIENCE = 15.0
"""Seconds that a turn waits for the bot before the scenario ends without it."""
ECHO_TAIL = 1.0
"""Seconds to listen to an echo after the last word."""
ANSWER_PATIENCE = 10.0
"""Seconds to wait for a bot's answer to the last word."""
ANSWER_OVER = 1.5
"""Seconds of silence after which an answer is over."""
LONGEST_ANSWER = 60.0
WHOLE = 10
"""Frames. A bot may answer in pieces of several: what is a multiple of a fifth of a second comes back whole."""


@dataclass(frozen=True)
class Turn:
    """Something that is said.

    Attributes:
        name: Of its recording.
        condition: One of :data:`CONDITIONS`.
        seconds: What the condition is about.
    """

    name: str
    samples: Sequence[int]
    condition: str = "at"
    seconds: float = 0.0


@dataclass(frozen=True)
class Script:
    """All that is said, at one rate in Hz."""

    turns: tuple[Turn, ...]
    rate: int

    def at_rate(self, rate: int) -> Script:
        """The same at another rate."""
        turns = (Turn(t.name, audio.resample(t.samples, self.rate, rate), t.condition, t.seconds) for t in self.turns)
        return Script(tuple(turns), rate)


def from_wav(path: str) -> Script:
    """One recording, from the first moment on.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    samples, rate = audio.read_wav(path)
    return Script((Turn(path, samples),), rate)


def from_file(path: str) -> Script:
    """A scenario.

    Raises:
        CallError, OSError, ValueError: it, or a recording of it, cannot be read.
    """
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CallError(f"{path} is not TOML: {error}") from None
    listed = content.get("say")
    if not isinstance(listed, list) or not listed or set(content) != {"say"}:
        raise CallError(f"{path}: expected nothing but [[say]] tables, at least one")
    turns = [_turn(path, number, entry) for number, entry in enumerate(listed, 1)]
    rate = turns[0][1]
    return Script(
        tuple(Turn(t.name, audio.resample(t.samples, r, rate), t.condition, t.seconds) for t, r in turns), rate
    )


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
    """When to hang up after the last word. Calls to one bot share it: whether that is an echo is found out once.

    Args:
        seconds: None listens to the bot's answer, and to an echo for :data:`ECHO_TAIL`.
    """

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._hears_echo: bool | None = None

    def is_over(self, call: CallFigures, ended: float, now: float) -> bool:
        """Whether a call that has said all by ``ended`` has heard what there is to hear."""
        since = now - ended
        if self._seconds is not None:
            return since >= self._seconds
        if since < ECHO_TAIL or since > LONGEST_ANSWER:
            return since > LONGEST_ANSWER
        if self._hears_echo is None:
            self._hears_echo = echo.find(call.said, call.heard) is not None
        if self._hears_echo:
            return True
        spoken, answer = call.said.last(now), call.heard.last(now)
        if answer is None or answer.end <= (ended if spoken is None else spoken.end):
            return since >= ANSWER_PATIENCE
        return now - answer.end >= ANSWER_OVER


class Speaker:
    """Says a script in a call, frame by frame, and knows when to hang up."""

    def __init__(self, script: Script, call: CallFigures, tail: Tail) -> None:
        self._call = call
        self._tail = tail
        self._waiting = list(script.turns)
        self._saying: Turn | None = None
        self._at = 0
        self._ended = 0.0
        self._size = round(script.rate * FRAME_SECONDS)

    def next(self) -> list[int]:
        """The next 20 ms, silence where nothing is said."""
        now = self._now
        if self._saying is None and self._waiting and self._is_time(self._waiting[0], now):
            self._saying, self._at = self._waiting.pop(0), 0
        frame: list[int] = []
        if self._saying is not None:
            frame = list(self._saying.samples[self._at : self._at + self._size])
            self._at += self._size
            if self._at >= len(self._saying.samples):
                self._saying, self._ended = None, now + FRAME_SECONDS
        frame += [0] * (self._size - len(frame))
        self._call.said.add(frame, now)
        self._call.sent += 1
        return frame

    @property
    def finished(self) -> bool:
        """Whether all is said, and what was to be heard is heard."""
        if self._saying is not None or self._call.sent % WHOLE:
            return False
        if self._waiting:
            return self._gives_up(self._waiting[0])
        return self._tail.is_over(self._call, self._ended, self._now)

    @property
    def _now(self) -> float:
        """By frames, as the bot hears it."""
        return self._call.sent * FRAME_SECONDS

    def _is_time(self, turn: Turn, now: float) -> bool:
        if turn.condition == "at":
            return now >= turn.seconds
        speech = self._call.heard.last(now)
        if speech is None or speech.end <= self._ended:
            return False
        if turn.condition == "answered":
            return now - speech.end >= turn.seconds
        return speech.start + turn.seconds <= now < speech.end + FRAME_SECONDS

    def _gives_up(self, turn: Turn) -> bool:
        """On a bot that does not do what the turn waits for."""
        if turn.condition == "at":
            return False
        speech = self._call.heard.last(self._now)
        quiet = self._now - max(self._ended, 0.0 if speech is None else speech.end)
        if quiet < PATIENCE and self._now - self._ended < LONGEST_ANSWER:
            return False
        self._call.unsaid = [each.name for each in self._waiting]
        return True
