"""Makes its room itself, with pipecat's helper."""

import aiohttp

from parts import talk
from pipecat.runner.daily import configure
from pipecat.runner.types import RunnerArguments
from pipecat.transports.daily.transport import DailyParams, DailyTransport


async def bot(args: RunnerArguments):
    async with aiohttp.ClientSession() as session:
        room = await configure(session, sip_caller_phone=args.body.get("caller"))
        transport = DailyTransport(room.room_url, room.token, "Host", params=DailyParams(audio_in_enabled=True))
    await talk(transport)
