"""Run by test_observers: calls that the setup file's observer passes on, as JSON. The only one to import pipecat."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import re
import sys
from typing import Any

from loguru import logger
from pipecat.frames.frames import Frame, InputAudioRawFrame, StartFrame, TextFrame
from pipecat.observers.base_observer import BaseObserver, FrameProcessed, FramePushed
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor

from pipecat_base.bot import observers
from pipecat_base.telemetry.session_context import ObserverOptions, SessionContext, within_session

NOBODY: Any = None


class Inner(BaseObserver):  # type: ignore[misc]
    """Keeps the names of its calls."""

    def __init__(self, *, every_push: bool = False, fails_at: str = "") -> None:
        super().__init__(observe_every_push=every_push)
        self.calls: list[str] = []
        self._fails_at = fails_at

    def _record(self, call: str) -> None:
        self.calls.append(call)
        if call == self._fails_at:
            raise KeyError(call)

    async def setup(self, task_manager: Any) -> None:
        self._record("setup")

    async def cleanup(self) -> None:
        self._record("cleanup")

    async def on_pipeline_started(self) -> None:
        self._record("started")

    async def on_process_frame(self, data: FrameProcessed) -> None:
        self._record(f"process {type(data.frame).__name__}")

    async def on_push_frame(self, data: FramePushed) -> None:
        self._record(f"push {type(data.frame).__name__}")


def pushed(frame: Frame, *, first: bool = True) -> FramePushed:
    return FramePushed(NOBODY, NOBODY, frame, FrameDirection.DOWNSTREAM, 0, first)


async def all_events() -> list[list[str]]:
    """The calls that two observers get during the life of a pipeline."""
    inner = [Inner(), Inner()]
    together = observers._combined(list(inner))
    await together.setup(NOBODY)
    for frame in (StartFrame(), InputAudioRawFrame(bytes(320), 8000, 1), TextFrame("hello")):
        await together.on_process_frame(FrameProcessed(NOBODY, frame, FrameDirection.DOWNSTREAM, 0))
        await together.on_push_frame(pushed(frame))
    await together.on_pipeline_started()
    await together.cleanup()
    return [one.calls for one in inner]


async def repeated_pushes() -> dict[str, Any]:
    """Observers that get a frame which is pushed on, and requests for such frames before and after the start."""
    once, always = Inner(), Inner(every_push=True)
    together = observers._combined([once, always])
    before = together.observe_every_push
    await together.on_push_frame(pushed(StartFrame(), first=False))
    calls = {"once": list(once.calls), "always": list(always.calls)}
    await together.on_pipeline_started()
    return {**calls, "asks_for_every_push": [before, together.observe_every_push]}


async def failing(at: str) -> dict[str, Any]:
    """An observer that fails, and another one."""
    lines: list[str] = []
    logger.add(lines.append, format="{level} {message}")
    one, other = Inner(fails_at=at), Inner()
    together = observers._combined([one, other])
    await together.setup(NOBODY)
    for _ in range(2):
        await together.on_push_frame(pushed(TextFrame("hello")))
    await together.cleanup()
    return {"failing": one.calls, "other": other.calls, "log": [line for line in lines if "left out" in line]}


async def looked_at() -> list[str]:
    """Frames that are not passed on although the module of an observer names them."""
    names = ["startup_timing_observer", "user_bot_latency_observer", *observers.OBSERVERS]
    modules = [importlib.import_module(f"pipecat.observers.{name}") for name in names]
    modules.append(importlib.import_module("pipecat.utils.tracing.turn_trace_observer"))
    words = {word for module in modules for word in re.findall(r"\w+", inspect.getsource(module))}
    return sorted(words.intersection(observers.AUDIO_AND_VIDEO))


async def added(has_session: str) -> list[str]:
    """Observers that the setup file adds to a pipeline."""
    worker = PipelineWorker(Pipeline([FrameProcessor()]))
    before = len(worker._observer._observers)
    session = SessionContext("id", ObserverOptions(metrics=True, content=True), lambda *values: None)
    with within_session(session if has_session else NOBODY):
        await observers.setup_pipeline_worker(worker)
    return [type(observer).__name__ for observer in worker._observer._observers[before:]]


if __name__ == "__main__":
    scenario, *arguments = sys.argv[1:]
    print(json.dumps(asyncio.run(globals()[scenario](*arguments))))
