"""A table of transports, and what the call brought along."""

from loguru import logger

from parts import talk
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import TransportParams
from pipecat.transports.daily.transport import DailyParams
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams

transports = {
    "daily": lambda: DailyParams(audio_in_enabled=True, audio_out_enabled=True),
    "webrtc": lambda: TransportParams(audio_in_enabled=True, audio_out_enabled=True),
    "twilio": lambda: FastAPIWebsocketParams(audio_in_enabled=True, audio_out_enabled=True),
}


async def bot(runner_args):
    transport = await create_transport(runner_args, transports)
    known = runner_args.body or {}
    logger.info(f"For {known.get('user', {}).get('firstName', 'somebody')}")
    await talk(transport, 8000)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
