"""Chooses its transport with `isinstance`, and has Krisp's filter only where `ENV` is not local."""

import os

from loguru import logger

from parts import talk
from pipecat.runner.types import DailyRunnerArguments, RunnerArguments, SmallWebRTCRunnerArguments


async def bot(runner_args: RunnerArguments):
    quiet = None
    if os.environ.get("ENV") != "local":
        from pipecat.audio.filters.krisp_viva_filter import KrispVivaFilter

        quiet = KrispVivaFilter()

    transport = None
    if isinstance(runner_args, DailyRunnerArguments):
        from pipecat.transports.daily.transport import DailyParams, DailyTransport

        transport = DailyTransport(
            runner_args.room_url,
            runner_args.token,
            "Lazy",
            params=DailyParams(audio_in_filter=quiet, audio_in_enabled=True, audio_out_enabled=True),
        )
    elif isinstance(runner_args, SmallWebRTCRunnerArguments):
        from pipecat.transports.base_transport import TransportParams
        from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport

        transport = SmallWebRTCTransport(
            params=TransportParams(audio_in_enabled=True, audio_out_enabled=True),
            webrtc_connection=runner_args.webrtc_connection,
        )
    else:
        logger.error(f"No transport for {type(runner_args).__name__}")
        return
    await talk(transport)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
