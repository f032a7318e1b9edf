"""Figures of a bot that talks: when it answers, whether it heeds interruptions, how long and loud it speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipecat_base.cli.call.track import Track, Utterance, mean_level

HEED_SECONDS = 2.0
OVERLAP_SECONDS = 0.1  # speech that begins this soon after other speech began with it, and interrupts no one


@dataclass(frozen=True)
class SpokenAnswer:
    asked: float  # the end of the caller's utterance
    began: float

    @property
    def latency(self) -> float:
        return max(0.0, self.began - self.asked)


@dataclass(frozen=True)
class Interruption:
    at: float
    stopped: float | None  # seconds after which the bot was silent


@dataclass(frozen=True)
class Conversation:
    first_speech: float | None
    answers: tuple[SpokenAnswer, ...]
    unanswered: int
    interruptions: tuple[Interruption, ...]
    spoken: float  # seconds
    level: float | None  # dBFS


def measure(caller: Track, bot: Track) -> Conversation:
    ends = [utterance.start for utterance in caller.utterances[1:]] + [math.inf]
    found = [_answer(*each, bot.utterances) for each in zip(caller.utterances, ends, strict=False)]
    answers = tuple(answer for answer in found if answer is not None)
    interruptions = tuple(
        _interruption(utterance.start, speech)
        for utterance in caller.utterances
        for speech in bot.utterances
        if speech.start + OVERLAP_SECONDS < utterance.start < speech.end
    )
    return Conversation(
        bot.utterances[0].start if bot.utterances else None,
        answers,
        len(caller.utterances) - len(answers),
        interruptions,
        sum(speech.end - speech.start for speech in bot.utterances),
        mean_level(bot.speech()),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


def _answer(utterance: Utterance, until: float, speeches: Sequence[Utterance]) -> SpokenAnswer | None:
    for speech in speeches:
        if utterance.start + OVERLAP_SECONDS < speech.start < until and speech.end > utterance.end:
            return SpokenAnswer(utterance.end, speech.start)
    return None


def _interruption(at: float, speech: Utterance) -> Interruption:
    after = speech.end - at
    return Interruption(at, after if after <= HEED_SECONDS else None)
