"""Tells by a model when the caller has finished, in a room of Daily's; with the log set up as most examples do."""

import os
import sys

from loguru import logger

from parts import Echo
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADParams
from pipecat.frames.frames import EndFrame, LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.runner.types import DailyRunnerArguments
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.transports.daily.transport import DailyParams, DailyTransport
from pipecat.turns.user_stop import TurnAnalyzerUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies

logger.remove(0)
logger.add(sys.stderr, level="DEBUG")


async def converse(room_url: str, token: str):
    transport = DailyTransport(room_url, token, "Patient", DailyParams(audio_in_enabled=True, audio_out_enabled=True))
    model = OpenAILLMService(api_key=os.environ.get("OPENAI_API_KEY"), settings=OpenAILLMService.Settings(model="m"))
    turns = UserTurnStrategies(stop=[TurnAnalyzerUserTurnStopStrategy(turn_analyzer=LocalSmartTurnAnalyzerV3())])
    context = LLMContext()
    user, assistant = LLMContextAggregatorPair(
        context,
        user_params=LLMUserAggregatorParams(
            user_turn_strategies=turns, vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=0.2))
        ),
    )
    task = PipelineTask(
        Pipeline([transport.input(), Echo(), user, model, transport.output(), assistant]),
        params=PipelineParams(enable_metrics=True, enable_usage_metrics=True),
    )

    @transport.event_handler("on_first_participant_joined")
    async def joined(transport, participant):
        await task.queue_frames([LLMRunFrame()])

    @transport.event_handler("on_participant_left")
    async def left(transport, participant, reason):
        await task.queue_frame(EndFrame())

    await PipelineRunner().run(task)


async def bot(args: DailyRunnerArguments):
    logger.info(f"To join: {args.room_url}, as {args.session_id}, with {args.body}")
    try:
        await converse(args.room_url, args.token)
    except Exception as error:
        logger.exception(f"It failed: {error}")
        raise
