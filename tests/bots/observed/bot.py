"""A conversation without audio: the frames of a call, as a transport and services would push them."""

import asyncio
import os
import signal
import time
import warnings

from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ClientConnectedFrame,
    EndTaskFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMTextFrame,
    MetricsFrame,
    StartFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.metrics.metrics import (
    LLMTokenUsage,
    LLMUsageMetricsData,
    STTUsage,
    STTUsageMetricsData,
    TTFBMetricsData,
    TTSUsageMetricsData,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.utils.errors import ErrorCategory
from pipecat.utils.time import time_now_iso8601
from pipecat.workers.runner import WorkerRunner


class Call(FrameProcessor):
    """One turn of the user's, and the bot's answer."""

    def __init__(self, script: dict) -> None:
        super().__init__()
        self.script = script

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self.create_task(self.converse(measured=self.metrics_enabled))
            if self.script.get("audio"):
                self.create_task(self.hear())

    async def hear(self) -> None:
        """Silence, in frames of 20 ms as they come from a phone."""
        due = time.monotonic()
        while True:
            await self.push_frame(InputAudioRawFrame(bytes(320), 8000, 1))
            due += 0.02
            await asyncio.sleep(due - time.monotonic())

    async def converse(self, *, measured: bool) -> None:
        await self.push_frame(ClientConnectedFrame())
        await asyncio.sleep(0.1)
        await self.push_frame(BotStartedSpeakingFrame())  # a greeting
        await self.push_frame(BotStoppedSpeakingFrame())
        for _ in range(self.script.get("turns", 1)):
            await self.turn(measured)
            await asyncio.sleep(self.script.get("pause", 0))
        if self.script.get("error"):
            category = ErrorCategory(self.script["category"]) if "category" in self.script else None
            error = TimeoutError("s3cr3t-of-a-service")
            await self.push_error(self.script["error"], exception=error, category=category)
        await asyncio.sleep(0.1)
        end = self.script.get("end")
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif end == "stay":
            await asyncio.sleep(60)
        await self.push_frame(EndTaskFrame(), FrameDirection.UPSTREAM)

    async def turn(self, measured: bool) -> None:
        await self.push_frame(VADUserStartedSpeakingFrame())
        await self.push_frame(UserStartedSpeakingFrame())
        await asyncio.sleep(0.05)
        await self.push_frame(TranscriptionFrame(self.script.get("text", "hello"), "caller", time_now_iso8601()))
        await self.push_frame(VADUserStoppedSpeakingFrame())
        await self.push_frame(UserStoppedSpeakingFrame())
        await asyncio.sleep(self.script.get("think", 0.1))
        if measured:
            usage = LLMTokenUsage(prompt_tokens=100, completion_tokens=20, total_tokens=120)
            data = [
                TTFBMetricsData(processor="FakeLLMService#0", model="fake-1", value=0.25),
                TTFBMetricsData(processor="FakeTTSService#0", value=0.125),
                LLMUsageMetricsData(processor="FakeLLMService#0", model="fake-1", value=usage),
                TTSUsageMetricsData(processor="FakeTTSService#0", value=42),
                STTUsageMetricsData(processor="FakeSTTService#0", value=STTUsage(audio_seconds=1.5)),
            ]
            await self.push_frame(MetricsFrame(data=data))
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame(self.script.get("answer", "hello to you")))
        await self.push_frame(LLMFullResponseEndFrame())
        await self.push_frame(BotStartedSpeakingFrame())
        await asyncio.sleep(0.05)
        if self.script.get("interrupted"):
            await self.push_frame(InterruptionFrame())
        await self.push_frame(BotStoppedSpeakingFrame())




async def bot(args: object) -> None:
    script = getattr(args, "body", None) or {}
    if script.get("print"):
        print(script["print"])
        warnings.warn("a warning of the bot's", stacklevel=1)
    if script.get("raise"):
        raise ValueError(script["raise"])
    if script.get("block"):
        time.sleep(script["block"])
    if script.get("background"):

        async def fail() -> None:
            raise KeyError("in the background")

        asyncio.ensure_future(fail())  # noqa: RUF006
        await asyncio.sleep(0.1)
    if script.get("return"):
        return
    pair = LLMContextAggregatorPair(LLMContext([]))
    pipeline = Pipeline([Call(script), pair.user(), pair.assistant()])
    worker = PipelineWorker(pipeline, enable_tracing=script.get("trace", False))
    runner = WorkerRunner(handle_sigint=False, handle_sigterm=False)
    await runner.add_workers(worker)
    await runner.run()
