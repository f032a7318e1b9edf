"""Calls to a bot on this machine."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipecat_base.cli.call import audio, phone
from pipecat_base.cli.call.address import Address
from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.providers import Twilio
from pipecat_base.cli.call.scenario import Script, Tail, Turn

TAIL = 1.0
"""Seconds to listen after the last word."""


async def by_twilio(port: int, samples: ArrayLike) -> CallFigures:
    """One call that says samples of 8 kHz."""
    script = Script((Turn("speech", np.asarray(samples, np.int16)),), audio.PHONE_RATE)
    return await phone.place_call(Address(f"ws://127.0.0.1:{port}/ws"), script, Twilio(), Tail(TAIL))
