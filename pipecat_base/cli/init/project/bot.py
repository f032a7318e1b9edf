"""A voice bot that says back what it hears, in a browser and on the phone. It needs no keys."""

from pipecat.frames.frames import Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.types import RunnerArguments, WebSocketRunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner


def phone() -> FastAPIWebsocketParams:
    return FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)


TRANSPORTS = {
    "webrtc": lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True),
    "twilio": phone,
    "telnyx": phone,
    "plivo": phone,
    "exotel": phone,
}


class Echo(FrameProcessor):
    """Turns the caller's audio into the bot's."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


async def bot(args: RunnerArguments) -> None:
    """Runs once for every call, and returns when the call is over."""
    transport = await create_transport(args, TRANSPORTS)
    pipeline = Pipeline(
        [
            transport.input(),
            # Replace Echo() with your services, in this order: speech-to-text (STT), turns.user(), language model
            # (LLM), text-to-speech (TTS), with turns = LLMContextAggregatorPair(LLMContext()).
            Echo(),
            transport.output(),
            # turns.assistant() goes here.
        ]
    )
    rate = 8000 if isinstance(args, WebSocketRunnerArguments) else 16000  # a phone's, or a browser's
    params = PipelineParams(audio_in_sample_rate=rate, audio_out_sample_rate=rate)
    worker = PipelineWorker(pipeline, params=params)

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: BaseTransport, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=args.handle_sigint, handle_sigterm=args.handle_sigterm)
    await runner.add_workers(worker)
    await runner.run()
