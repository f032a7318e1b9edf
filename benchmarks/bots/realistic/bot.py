"""Imports what a real bot imports."""

from pipecat.audio.vad.silero import SileroVADAnalyzer  # noqa: F401
from pipecat.pipeline.pipeline import Pipeline  # noqa: F401
from pipecat.processors.aggregators.llm_context import LLMContext  # noqa: F401
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair  # noqa: F401
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport  # noqa: F401
from pipecat.services.openai.llm import OpenAILLMService  # noqa: F401
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams  # noqa: F401


async def bot(args: RunnerArguments) -> None: ...
