"""Calls to a bot on this machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.__main__ import ECHO
from pipecat_base.cli.call import audio, phone
from pipecat_base.cli.call.address import Address
from pipecat_base.cli.call.audio import Samples
from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.providers import Twilio
from pipecat_base.cli.call.scenario import Script, Tail, Turn

TAIL = 1.0
"""Seconds to listen after the last word."""


async def by_twilio(port: int, samples: ArrayLike, tail: float = TAIL) -> CallFigures:
    """One call that says samples of 8 kHz."""
    script = Script((Turn("speech", np.asarray(samples, np.int16)),), audio.PHONE_RATE)
    return await phone.place_call(Address(f"ws://127.0.0.1:{port}/ws"), script, Twilio(), Tail(tail))


def speech(seconds: float) -> Samples:
    """So much of it, of 8 kHz, again and again."""
    samples, rate = audio.read_wav(str(ECHO.parent / "speech.wav"))
    return np.resize(audio.resample(samples, rate, audio.PHONE_RATE), int(seconds * audio.PHONE_RATE))


def lost(calls: Sequence[CallFigures]) -> int:
    """Frames that did not come back."""
    return sum(call.lost if call.echo else call.sent - call.received for call in calls)


def worst_gap(calls: Sequence[CallFigures]) -> float:
    """Seconds between two frames, the worst call's 99th percentile."""
    return max(call.p99_gap() for call in calls)
