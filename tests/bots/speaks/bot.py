"""An ordinary phone bot with pipecat's own transports; a sink and a patcher of its own see what it logs."""

import os
import sys

from loguru import logger
from pipecat.frames.frames import EndFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineTask
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams

if os.environ.get("OWN_SINK"):
    logger.add(os.environ["OWN_SINK"], level="TRACE", format="{message}")
    logger.configure(patcher=lambda record: record["extra"].update(patched=True))

PHONE = lambda: FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True)  # noqa: E731
PARAMS = {name: PHONE for name in ("twilio", "telnyx", "plivo", "exotel")}
PARAMS["webrtc"] = lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True)


async def bot(args):
    # Or pipecat makes no serializer, and the call is over before the caller has said all.
    for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TELNYX_API_KEY", "PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN"):
        os.environ.setdefault(name, "x")
    transport = await create_transport(args, PARAMS)
    task = PipelineTask(Pipeline([transport.input(), transport.output()]))

    @transport.event_handler("on_client_disconnected")
    async def left(transport, client):
        await task.cancel()

    await PipelineRunner(handle_sigint=False).run(task)
