"""Says back what it hears, over every transport that pipecat can open here. Needs no keys."""

import importlib.util
import os
from array import array

from loguru import logger
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    LLMMessagesAppendFrame,
    OutputAudioRawFrame,
    TranscriptionFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport
from pipecat.utils.time import time_now_iso8601

try:
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.workers.runner import WorkerRunner
except ImportError:  # pipecat-ai < 1.3
    from pipecat.pipeline.runner import PipelineRunner as WorkerRunner
    from pipecat.pipeline.task import PipelineParams
    from pipecat.pipeline.task import PipelineTask as PipelineWorker

try:
    from pipecat.frames.frames import AggregatedTextFrame
except ImportError:  # an older pipecat: typed text gets no answer
    AggregatedTextFrame = None

if importlib.util.find_spec("daily"):
    from pipecat.transports.daily.transport import DailyParams
else:
    DailyParams = TransportParams

# pipecat hangs up through the provider's API, and will not start without credentials. An echo needs no hang-up: the
# caller ends the call.
for variable in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TELNYX_API_KEY", "PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN"):
    os.environ.setdefault(variable, "none")


class Ear:
    """Tells stretches of sound from silence: how long each was, and how high."""

    LOUD = 500  # of 32767
    SHORTEST, LONGEST, PAUSE = 0.2, 3.0, 0.3  # seconds; what goes on for longer is told in parts

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self.now = self.first = self.last = 0.0  # seconds: heard so far, when the wave rose first, and last
        self.rises, self.below = 0, False

    def hear(self, audio: bytes, rate: int) -> str | None:
        """What there is to say about a stretch, once it has ended."""
        for number, sample in enumerate(array("h", audio)):
            if sample < -self.LOUD:
                self.below = True
            elif sample > self.LOUD and self.below:
                self.below = False
                self.rises += 1
                self.last = self.now + number / rate
                self.first = self.first if self.rises > 1 else self.last
        self.now += len(audio) / 2 / rate
        if self.rises and self.last < self.LONGEST and self.now - self.last < self.PAUSE:
            return None  # it goes on
        seconds, waves = self.last - self.first, self.rises - 1
        self.forget()
        return f"heard {seconds:.1f} s of sound, about {waves / seconds:.0f} Hz" if seconds > self.SHORTEST else None


class Echo(FrameProcessor):
    """Turns the caller's audio into the bot's, and tells clients what it was, as a speech-to-text service would.

    What the caller types it answers in words.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ear = Ear()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMMessagesAppendFrame):
            for message in frame.messages:
                await self._write(f"You wrote: {message['content']}")
        if not isinstance(frame, InputAudioRawFrame):
            await self.push_frame(frame, direction)
            return
        await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels))
        heard = self._ear.hear(frame.audio, frame.sample_rate)
        if heard:
            # A client that speaks RTVI gets it as user-transcription; phones ignore it.
            await self.push_frame(TranscriptionFrame(heard, "caller", time_now_iso8601()))

    async def _write(self, text: str) -> None:
        """A client that speaks RTVI gets it as bot-output."""
        if AggregatedTextFrame is not None:
            frame = AggregatedTextFrame(text, "sentence")
            frame.skip_tts = True  # or it waits for speech
            await self.push_frame(frame)


def phone() -> FastAPIWebsocketParams:
    return FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True, audio_in_passthrough=True)


def client() -> FastAPIWebsocketParams:
    params = phone()
    params.serializer = ProtobufFrameSerializer()
    return params


TRANSPORTS = {
    "twilio": phone,
    "telnyx": phone,
    "plivo": phone,
    "exotel": phone,
    "websocket": client,
    "webrtc": lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True, audio_in_passthrough=True),
    "daily": lambda: DailyParams(audio_in_enabled=True, audio_out_enabled=True, audio_in_passthrough=True),
}
PHONES = ("twilio", "telnyx", "plivo", "exotel")


async def open_transport(args: RunnerArguments) -> BaseTransport:
    if getattr(args, "transport_type", None) == "websocket":
        # create_transport of pipecat-ai < 1.3 would wait for a phone provider's first message.
        return FastAPIWebsocketTransport(websocket=args.websocket, params=client())
    return await create_transport(args, TRANSPORTS)


async def bot(args: RunnerArguments) -> None:
    if type(args).__name__ in ("RunnerArguments", "PipecatSessionArguments"):
        logger.info("Nothing to echo: this session has neither a socket nor a room")
        return
    transport = await open_transport(args)
    kind = getattr(args, "transport_type", None)
    rate = 8000 if kind in PHONES else 16000
    # pipecat's JavaScript client plays what comes over a WebSocket at 24 kHz, whatever the frames say.
    params = PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=24000 if kind == "websocket" else rate)
    worker = PipelineWorker(Pipeline([transport.input(), Echo(), transport.output()]), params=params)

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=args.handle_sigint, handle_sigterm=args.handle_sigterm)
    if hasattr(runner, "add_workers"):
        await runner.add_workers(worker)
        await runner.run()
    else:
        await runner.run(worker)
