"""Says when its first line ran. Imports what a phone bot has."""

import time

from aiortc import RTCPeerConnection  # noqa: F401
from pipecat.audio.vad.silero import SileroVADAnalyzer  # noqa: F401
from pipecat.pipeline.pipeline import Pipeline  # noqa: F401
from pipecat.transports.websocket.fastapi import FastAPIWebsocketTransport  # noqa: F401


async def bot(args):
    print(f"first line {time.monotonic():.6f}", flush=True)
