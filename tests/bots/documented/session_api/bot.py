"""Routes beside the call that reach into its pipeline, through a name of the module."""

from loguru import logger
from pydantic import BaseModel

from pipecat.frames.frames import Frame, LLMMessagesAppendFrame, TTSSpeakFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner
from pipecatcloud_system import app

current: PipelineWorker | None = None
seen = {"frames": 0}


class Caller(BaseModel):
    user_name: str
    preferences: dict


class Saying(BaseModel):
    message: str


class Listener(FrameProcessor):
    """Stands in for the language model and the voice."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMMessagesAppendFrame | TTSSpeakFrame):
            seen["frames"] += 1
            logger.info(f"Reached by {frame.messages if hasattr(frame, 'messages') else frame.text}")
        await self.push_frame(frame, direction)


@app.get("/status")
async def status():
    return seen


@app.post("/context")
async def learn(caller: Caller):
    if not current:
        return {"error": "no call"}, 503
    message = {"role": "developer", "content": f"{caller.user_name} likes {caller.preferences}"}
    await current.queue_frame(LLMMessagesAppendFrame(messages=[message], run_llm=False))
    return {"user_name": caller.user_name}


@app.post("/speak")
async def speak(saying: Saying):
    if not current:
        return {"error": "no call"}, 503
    await current.queue_frame(TTSSpeakFrame(text=saying.message))
    return {"queued": True}


async def bot(args):
    global current
    worker = PipelineWorker(Pipeline([Listener()]))
    current = worker
    runner = WorkerRunner()
    await runner.run(worker)
    current = None
