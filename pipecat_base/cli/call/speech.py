"""What matters of a bot that talks: when it answers, whether it heeds interruptions, how long and loud it speaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipecat_base.cli.call.track import Track, Utterance, mean_level

HEED = 2.0
"""Seconds within which a bot that is interrupted falls silent, or does not heed it."""
AT_ONCE = 0.1
"""Seconds: who speaks before the other has spoken this long begins with them, and interrupts nobody."""


@dataclass(frozen=True)
class SpokenAnswer:
    """The bot's to one utterance: seconds on the call's clock; 0 s late when it spoke before that had ended."""

    asked: float
    began: float

    @property
    def latency(self) -> float:
        """Seconds from the end of the caller's speech to the bot's."""
        return max(0.0, self.began - self.asked)


@dataclass(frozen=True)
class Interruption:
    """The caller speaks while the bot does.

    Attributes:
        at: Seconds on the call's clock.
        stopped: Seconds after which the bot was silent; None when it went on.
    """

    at: float
    stopped: float | None


@dataclass(frozen=True)
class Conversation:
    """Figures of a call with a bot that talks.

    Attributes:
        first_speech: Seconds from the connection to the bot's first word; None when it said none.
        unanswered: Utterances of the caller's that the bot did not answer before the next, or the end.
        spoken: Seconds of the bot's speech.
        level: Its mean in dBFS; None without any.
    """

    first_speech: float | None
    answers: tuple[SpokenAnswer, ...]
    unanswered: int
    interruptions: tuple[Interruption, ...]
    spoken: float
    level: float | None


def measure(caller: Track, bot: Track) -> Conversation:
    """The figures of a call that is over."""
    answers = []
    for number, utterance in enumerate(caller.utterances):
        following = caller.utterances[number + 1 :]
        answer = _answer(utterance, following[0].start if following else float("inf"), bot.utterances)
        if answer is not None:
            answers.append(answer)
    interruptions = [
        _interruption(utterance.start, speech)
        for utterance in caller.utterances
        for speech in bot.utterances
        if speech.start + AT_ONCE < utterance.start < speech.end
    ]
    return Conversation(
        bot.utterances[0].start if bot.utterances else None,
        tuple(answers),
        len(caller.utterances) - len(answers),
        tuple(interruptions),
        sum(speech.end - speech.start for speech in bot.utterances),
        mean_level(bot.speech()),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many of a hundred do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent * len(ordered) / 100) - 1)]


def _answer(utterance: Utterance, until: float, speeches: Sequence[Utterance]) -> SpokenAnswer | None:
    for speech in speeches:
        if utterance.start + AT_ONCE < speech.start < until and speech.end > utterance.end:
            return SpokenAnswer(utterance.end, speech.start)
    return None


def _interruption(at: float, speech: Utterance) -> Interruption:
    after = speech.end - at
    return Interruption(at, after if after <= HEED else None)
