"""A voice assistant: OpenAI hears, thinks and speaks. Needs OPENAI_API_KEY."""

import os

from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.frames.frames import LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams
from pipecat.workers.runner import WorkerRunner

MANNER = "You are on a phone call. Answer in one or two short sentences, without lists or symbols."

TRANSPORTS = {
    "webrtc": lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True),
    "twilio": lambda: FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True),
}


def setup() -> None:
    if not os.environ.get("OPENAI_API_KEY"):
        raise RuntimeError("OPENAI_API_KEY is not set (docker run -e OPENAI_API_KEY)")


async def bot(args: RunnerArguments) -> None:
    transport = await create_transport(args, TRANSPORTS)
    context = LLMContext([{"role": "developer", "content": f"{MANNER} Greet the caller."}])
    turns = LLMContextAggregatorPair(context, user_params=LLMUserAggregatorParams(vad_analyzer=SileroVADAnalyzer()))
    key = os.environ["OPENAI_API_KEY"]
    pipeline = Pipeline(
        [
            transport.input(),
            OpenAISTTService(api_key=key),
            turns.user(),
            OpenAILLMService(api_key=key),
            OpenAITTSService(api_key=key),
            transport.output(),
            turns.assistant(),
        ]
    )
    # The rate that OpenAI speaks at; transports convert it to their own.
    worker = PipelineWorker(pipeline, params=PipelineParams(audio_out_sample_rate=24000))

    @transport.event_handler("on_client_connected")
    async def on_client_connected(transport: object, client: object) -> None:
        await worker.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_client_disconnected")
    async def on_client_disconnected(transport: object, client: object) -> None:
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=args.handle_sigint, handle_sigterm=args.handle_sigterm)
    await runner.add_workers(worker)
    await runner.run()
