"""One transport, made by hand, with the names of pipeline and runner that pipecat had before 1.0."""

from parts import Echo
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.runner.types import RunnerArguments
from pipecat.transports.base_transport import BaseTransport, TransportParams
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport


async def converse(transport: BaseTransport):
    task = PipelineTask(
        Pipeline([transport.input(), Echo(), transport.output()]), params=PipelineParams(enable_metrics=True)
    )

    @transport.event_handler("on_client_disconnected")
    async def hung_up(transport, client):
        await task.cancel()

    runner = PipelineRunner(handle_sigint=False)
    await runner.run(task)


async def bot(runner_args: RunnerArguments):
    transport = SmallWebRTCTransport(
        params=TransportParams(audio_in_enabled=True, audio_out_enabled=True),
        webrtc_connection=runner_args.webrtc_connection,
    )
    await converse(transport)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
