"""Is what came back what was said? Then how late is it, and how much of it is missing?

Stretches of what was said are looked for in what was heard: first by their levels, then by their waves.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipecat_base.cli.call.track import FRAME_SECONDS, Track

RATE = 2000
"""Samples a second that are compared: the tones of a voice and not its hiss."""
STEP = 20
"""Of these samples, 10 ms: the grid on which levels are compared."""
LEAD, FOLLOW = 0.1, 0.4
"""Seconds before and after an edge of an utterance that belong to a stretch."""
REACH = 3.0
"""Seconds that an echo may be early, for what is missing before it, or late."""
ALIKE = 0.6
"""Correlation of two stretches from which on they are the same. Speech and other speech have less than 0.3."""
AS_GOOD = 0.005
"""A correlation this close to the best is as good: of a tone's many, the nearest counts."""
CANDIDATES = 4
MOST = 8
"""Stretches that are compared."""


@dataclass(frozen=True)
class EchoMatcher:
    """What came back of what was said.

    Attributes:
        delay: Seconds, at the end.
        lost: Frames of 20 ms that are missing before the last that was found: those still under way are not.
    """

    delay: float
    lost: int


def find(said: Track, heard: Track) -> EchoMatcher | None:
    """The echo, or None where the other side said something else."""
    words, answer = _slow(said), _slow(heard)
    found = [(index, _search(words, index, answer)) for index in _stretches(said)]
    matches = [(index, match) for index, match in found if match is not None]
    if not matches or 2 * len(matches) < len(found):
        return None
    index, match = max(matches)
    delay = heard.time_of(match * heard.rate // RATE) - said.time_of(index * said.rate // RATE)
    return EchoMatcher(max(0.0, delay), max(0, round((index - match) / RATE / FRAME_SECONDS)))


def _stretches(said: Track) -> list[int]:
    """Where they begin: around the edges of what was said, where it does not sound like what is beside it."""
    edges = [(u.start, LEAD) for u in said.utterances] + [(u.end, FOLLOW) for u in said.utterances]
    edges.sort()
    if len(edges) > MOST:
        edges = [edges[round(n * (len(edges) - 1) / (MOST - 1))] for n in range(MOST)]
    return [round(said.index_at(max(0.0, at - before)) * RATE / said.rate) for at, before in edges]


def _search(words: list[int], index: int, answer: list[int]) -> int | None:
    """Where in ``answer`` the stretch of ``words`` at ``index`` is."""
    size = round((LEAD + FOLLOW) * RATE)
    stretch = words[index : index + size]
    first = max(0, index - round(REACH * RATE)) // STEP * STEP
    slots = range(first, min(len(answer) - len(stretch), index + round(REACH * RATE)), STEP)
    if len(stretch) < size // 2 or not slots:
        return None
    levels, heard = _levels(stretch), _levels(answer[first : slots[-1] + len(stretch)])
    coarse = sorted(((_alike(levels, heard[n : n + len(levels)]), slot) for n, slot in enumerate(slots)), reverse=True)
    fine = {slot: _alike(stretch, answer[slot : slot + len(stretch)]) for slot in _around(coarse, len(answer) - 1)}
    best = max(fine.values())
    if best < ALIKE:
        return None
    return min((slot for slot, alike in fine.items() if alike > best - AS_GOOD), key=lambda n: abs(n - index))


def _around(coarse: list[tuple[float, int]], end: int) -> Iterator[int]:
    seen: set[int] = set()
    chosen: list[int] = []
    for _, slot in coarse:
        if all(abs(slot - other) > 2 * STEP for other in chosen):
            chosen.append(slot)
            seen.update(range(max(0, slot - 2 * STEP), min(end, slot + 2 * STEP + 1)))
        if len(chosen) == CANDIDATES:
            break
    yield from sorted(seen)


def _levels(samples: Sequence[int]) -> list[int]:
    return [sum(map(abs, samples[n : n + STEP])) for n in range(0, len(samples), STEP)]


def _alike(one: Sequence[int], other: Sequence[int]) -> float:
    """Their correlation, from -1 to 1."""
    product = sum(map(operator.mul, one, other))
    size = sum(map(operator.mul, one, one)) * sum(map(operator.mul, other, other))
    return product / math.sqrt(size) if size else 0.0


def _slow(track: Track) -> list[int]:
    """At :data:`RATE`: the means of what is between."""
    step = track.rate / RATE
    samples = track.samples
    count = int(len(samples) / step)
    bounds = [int(n * step) for n in range(count + 1)]
    return [sum(samples[a:b]) // max(1, b - a) for a, b in itertools.pairwise(bounds)]
