"""Finds stretches of the sent audio in the received audio: an echo, its delay, and its gaps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipecat_base.cli.call.track import FRAME_SECONDS, Track

RATE = 2000  # of the samples that are compared: enough for the tones of a voice, too low for its hiss
LEAD_SECONDS, FOLLOW_SECONDS = 0.1, 0.4  # of a stretch, before and after an edge of an utterance
REACH_SECONDS = 3.0  # by which a stretch may be early, for frames that are missing before it, or late
MIN_CORRELATION = 0.6  # speech and other speech have less than 0.3
EQUAL_CORRELATION = 0.005  # a tone has many maxima: of those this close to the best, the nearest counts
MAX_STRETCHES = 8


@dataclass(frozen=True)
class EchoMatch:
    """An echo's delay in seconds, at the end, and how many frames are missing before the last stretch found."""

    delay: float
    lost: int


def find(said: Track, heard: Track) -> EchoMatch | None:
    """The echo, or None where the other side said something else."""
    words, answer = _slow(said), _slow(heard)
    found = [(index, _search(words, index, answer)) for index in _stretches(said)]
    matches = [(index, match) for index, match in found if match is not None]
    if not matches or 2 * len(matches) < len(found):
        return None
    index, match = max(matches)
    delay = heard.time_of(match * heard.rate // RATE) - said.time_of(index * said.rate // RATE)
    return EchoMatch(max(0.0, delay), max(0, round((index - match) / RATE / FRAME_SECONDS)))


def _stretches(said: Track) -> list[int]:
    """Starts of stretches: around the edges of utterances, which are unlike the rest."""
    edges = [(u.start, LEAD_SECONDS) for u in said.utterances] + [(u.end, FOLLOW_SECONDS) for u in said.utterances]
    edges.sort()
    if len(edges) > MAX_STRETCHES:
        edges = [edges[round(n * (len(edges) - 1) / (MAX_STRETCHES - 1))] for n in range(MAX_STRETCHES)]
    return [round(said.index_at(max(0.0, at - before)) * RATE / said.rate) for at, before in edges]


def _search(words: NDArray[np.float64], index: int, answer: NDArray[np.float64]) -> int | None:
    """The index in ``answer`` of the stretch that begins at ``index`` in ``words``."""
    size, reach = round((LEAD_SECONDS + FOLLOW_SECONDS) * RATE), round(REACH_SECONDS * RATE)
    stretch = words[index : index + size]
    first = max(0, index - reach)
    window = answer[first : index + reach + len(stretch)]
    if len(stretch) < size // 2 or len(window) < len(stretch):
        return None
    energy = np.convolve(np.square(window), np.ones(len(stretch)), "valid") * (stretch @ stretch)
    products = np.correlate(window, stretch, "valid")
    correlation = np.divide(products, np.sqrt(energy), out=np.zeros_like(products), where=energy > 0)
    best = correlation.max()
    if best < MIN_CORRELATION:
        return None
    good = first + np.flatnonzero(correlation > best - EQUAL_CORRELATION)
    return int(good[np.argmin(np.abs(good - index))])


def _slow(track: Track) -> NDArray[np.float64]:
    """The track at RATE: each sample is the mean of those that it replaces."""
    samples, step = track.samples.astype(np.float64), track.rate / RATE
    bounds = (np.arange(int(len(samples) / step) + 1) * step).astype(int)
    sums = np.add.reduceat(samples[: bounds[-1]], bounds[:-1])
    return sums / np.maximum(1, np.diff(bounds))
