"""One side's audio on the call's clock: as it is spoken, or as a phone plays it."""

from __future__ import annotations

import bisect
import math
import operator
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

FRAME_SECONDS = 0.02
FULL_SCALE = 32768
QUIET = -45.0
"""dBFS: what is below counts as silence."""
PAUSE = 0.5
"""Seconds of silence that end an utterance; shorter ones are part of it."""
SILENCE = -90.0
"""dBFS, of nothing at all."""


@dataclass
class Utterance:
    """From the first frame that is not silence to the end of the last, in seconds on the call's clock."""

    start: float
    end: float


@dataclass(frozen=True)
class Piece:
    """At most 20 ms: when it is played, its first sample, how many, and its level in dBFS."""

    at: float
    first: int
    count: int
    level: float


class Track:
    """What one side said.

    Args:
        rate: Samples a second.

    Attributes:
        samples: Without the pauses in which nothing came.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.samples = array("h")
        self.pieces: list[Piece] = []
        self.utterances: list[Utterance] = []
        self.end = 0.0
        """When what there is has been played."""

    def add(self, samples: Sequence[int], at: float) -> None:
        """Audio that comes at ``at``: what is ahead of it is played first."""
        size = max(1, round(self.rate * FRAME_SECONDS))
        for offset in range(0, len(samples), size):
            part = samples[offset : offset + size]
            start = max(at, self.end)
            piece = Piece(start, len(self.samples), len(part), level(part))
            self.end = start + len(part) / self.rate
            self.pieces.append(piece)
            self.samples.extend(part)
            if piece.level > QUIET:
                self._note_speech(start)

    def clear(self, now: float) -> None:
        """Throw away what has not been played."""
        while self.pieces and self.pieces[-1].at >= now:
            del self.samples[self.pieces.pop().first :]
        self.end = min(self.end, now)
        self.utterances = [u for u in self.utterances if u.start < now]
        if self.utterances:
            self.utterances[-1].end = min(self.utterances[-1].end, now)

    def catch_up(self, now: float) -> None:
        """Play what comes next at ``now``: the silence before it is cut short."""
        while self.pieces and self.pieces[-1].at >= now and self.pieces[-1].level < QUIET:
            del self.samples[self.pieces.pop().first :]
        self.end = max(now, self.pieces[-1].at + self.pieces[-1].count / self.rate if self.pieces else now)

    def last(self, now: float) -> Utterance | None:
        """The last utterance that has begun."""
        return next((u for u in reversed(self.utterances) if u.start <= now), None)

    def time_of(self, sample: int) -> float:
        """When this sample is played."""
        piece = self.pieces[max(0, bisect.bisect_right(self.pieces, sample, key=lambda piece: piece.first) - 1)]
        return piece.at + (sample - piece.first) / self.rate

    def index_at(self, time: float) -> int:
        """The sample that is played then."""
        found = bisect.bisect_right(self.pieces, time, key=lambda piece: piece.at) - 1
        if found < 0:
            return 0
        piece = self.pieces[found]
        return piece.first + min(piece.count, round((time - piece.at) * self.rate))

    def speech(self) -> Iterator[Piece]:
        """The pieces that are not silence."""
        return (piece for piece in self.pieces if piece.level > QUIET)

    def _note_speech(self, start: float) -> None:
        if self.utterances and start - self.utterances[-1].end < PAUSE:
            self.utterances[-1].end = self.end
        else:
            self.utterances.append(Utterance(start, self.end))


def level(samples: Sequence[int]) -> float:
    """The mean level in dBFS, of 16-bit samples."""
    power = sum(map(operator.mul, samples, samples)) / len(samples) if samples else 0
    return max(SILENCE, 10 * math.log10(power / FULL_SCALE**2)) if power else SILENCE


def mean_level(pieces: Iterator[Piece]) -> float | None:
    """Of several pieces, in dBFS; None without one."""
    powers = [10 ** (piece.level / 10) for piece in pieces]
    return 10 * math.log10(sum(powers) / len(powers)) if powers else None
