"""An ordinary phone bot, as people write it: an echo that says what it was given, and may hang up by itself."""

import json

from pipecat.frames.frames import EndFrame, Frame, InputAudioRawFrame, OutputAudioRawFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams

AUDIO = {"audio_in_enabled": True, "audio_out_enabled": True, "audio_in_passthrough": True}
TRANSPORTS = {
    "twilio": lambda: FastAPIWebsocketParams(**AUDIO),
    "telnyx": lambda: FastAPIWebsocketParams(**AUDIO),
    "plivo": lambda: FastAPIWebsocketParams(**AUDIO),
    "exotel": lambda: FastAPIWebsocketParams(**AUDIO),
    "webrtc": lambda: TransportParams(**AUDIO),
}


class Echo(FrameProcessor):
    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            frame = OutputAudioRawFrame(frame.audio, frame.sample_rate, frame.num_channels)
        await self.push_frame(frame, direction)


async def bot(args):
    transport = await create_transport(args, TRANSPORTS)
    data = getattr(args, "call_data", None)
    numbers = {"from": data.from_number, "to": data.to_number, "parameters": data.body} if data else {}
    print(json.dumps({"body": args.body, **numbers}), flush=True)
    task = PipelineTask(Pipeline([transport.input(), Echo(), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def left(transport, client):
        await task.cancel()

    if isinstance(args.body, dict) and args.body.get("hang_up"):
        await task.queue_frame(EndFrame())
    await PipelineRunner(handle_sigint=False).run(task)
