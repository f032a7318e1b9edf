"""Says back what it hears, over every transport that pipecat can open here. Needs no keys."""

import importlib.util
import os

from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.serializers.protobuf import ProtobufFrameSerializer
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport

try:
    from pipecat.pipeline.worker import PipelineParams, PipelineWorker
    from pipecat.workers.runner import WorkerRunner
except ImportError:  # pipecat-ai < 1.3
    from pipecat.pipeline.runner import PipelineRunner as WorkerRunner
    from pipecat.pipeline.task import PipelineParams
    from pipecat.pipeline.task import PipelineTask as PipelineWorker

if importlib.util.find_spec("daily"):
    from pipecat.transports.daily.transport import DailyParams
else:
    DailyParams = TransportParams

# pipecat hangs up through the provider's API, and will not start without credentials. An echo needs no hang-up: the
# caller ends the call.
for variable in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TELNYX_API_KEY", "PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN"):
    os.environ.setdefault(variable, "none")


class Echo(FrameProcessor):
    """Turns the caller's audio into the bot's."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            await self.push_frame(OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels))
        else:
            await self.push_frame(frame, direction)


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
    rate = 8000 if getattr(args, "transport_type", None) in PHONES else 16000
    params = PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=rate)
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
