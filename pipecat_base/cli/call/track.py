"""Audio of one side on the call's clock: as it is spoken, or as a phone plays it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from pipecat_base.cli.call.audio import Samples, level_dbfs

FRAME_SECONDS = 0.02
SPEECH_DBFS = -45.0
UTTERANCE_PAUSE_SECONDS = 0.5  # which ends an utterance


@dataclass
class Utterance:
    start: float
    end: float


@dataclass(frozen=True)
class Piece:
    """At most 20 ms of audio."""

    at: float  # when it is played
    first: int  # its first sample's index in the track
    samples: Samples
    level: float


class Track:
    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.pieces: list[Piece] = []
        self.utterances: list[Utterance] = []
        self.end = 0.0  # when all audio so far has been played

    @property
    def samples(self) -> Samples:
        """All audio, without the pauses in which none arrived."""
        return np.concatenate([np.zeros(0, np.int16), *(piece.samples for piece in self.pieces)])

    def add(self, samples: ArrayLike, at: float) -> None:
        """Queue audio that arrives at ``at``; earlier audio is played first."""
        pcm = np.asarray(samples, np.int16)
        size = max(1, round(self.rate * FRAME_SECONDS))
        first = self.pieces[-1].first + len(self.pieces[-1].samples) if self.pieces else 0
        for offset in range(0, len(pcm), size):
            part = pcm[offset : offset + size]
            piece = Piece(max(at, self.end), first + offset, part, level_dbfs(part))
            self.end = piece.at + len(part) / self.rate
            self.pieces.append(piece)
            if piece.level > SPEECH_DBFS:
                self._add_speech(piece.at)

    def clear(self, now: float) -> None:
        """Drop what has not been played."""
        while self.pieces and self.pieces[-1].at >= now:
            self.pieces.pop()
        self.end = min(self.end, now)
        self.utterances = [Utterance(u.start, min(u.end, now)) for u in self.utterances if u.start < now]

    def catch_up(self, now: float) -> None:
        """Drop silence that has not been played, so that the next audio is played sooner."""
        while self.pieces and self.pieces[-1].at >= now and self.pieces[-1].level < SPEECH_DBFS:
            self.pieces.pop()
        self.end = max(now, self.pieces[-1].at + len(self.pieces[-1].samples) / self.rate if self.pieces else now)

    def last(self, now: float) -> Utterance | None:
        """The last utterance that has begun."""
        return next((u for u in reversed(self.utterances) if u.start <= now), None)

    def time_of(self, sample: int) -> float:
        piece = self.pieces[max(0, bisect.bisect_right(self.pieces, sample, key=lambda piece: piece.first) - 1)]
        return piece.at + (sample - piece.first) / self.rate

    def index_at(self, time: float) -> int:
        found = bisect.bisect_right(self.pieces, time, key=lambda piece: piece.at) - 1
        if found < 0:
            return 0
        piece = self.pieces[found]
        return piece.first + min(len(piece.samples), round((time - piece.at) * self.rate))

    def speech(self) -> Iterator[Piece]:
        return (piece for piece in self.pieces if piece.level > SPEECH_DBFS)

    def _add_speech(self, start: float) -> None:
        if self.utterances and start - self.utterances[-1].end < UTTERANCE_PAUSE_SECONDS:
            self.utterances[-1].end = self.end
        else:
            self.utterances.append(Utterance(start, self.end))


def mean_level(pieces: Iterable[Piece]) -> float | None:
    powers = [10 ** (piece.level / 10) for piece in pieces]
    return 10 * math.log10(sum(powers) / len(powers)) if powers else None
