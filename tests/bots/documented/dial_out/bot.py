"""Rings somebody up from a room that the caller of /start made: its address is in the body."""

import os

from loguru import logger

from parts import talk
from pipecat.runner.types import RunnerArguments
from pipecat.transports.daily.transport import DailyParams, DailyTransport


async def bot(args: RunnerArguments):
    numbers = args.body.get("dialout_settings", [])
    logger.info(f"To ring up: {[number.get('phoneNumber') or number['sipUri'] for number in numbers]}")
    transport = DailyTransport(
        args.body["room_url"],
        args.body["token"],
        "Dial-out",
        DailyParams(
            api_url=os.getenv("DAILY_API_URL", "https://api.daily.co/v1"),
            api_key=os.getenv("DAILY_API_KEY"),
            audio_in_enabled=True,
            audio_out_enabled=True,
            video_out_enabled=False,
            transcription_enabled=True,
        ),
    )

    @transport.event_handler("on_call_state_updated")
    async def moved(transport, state):
        if state == "joined":
            for number in numbers:
                await transport.start_dialout(number)

    @transport.event_handler("on_dialout_answered")
    async def answered(transport, data):
        await transport.send_dtmf({"sessionId": data["sessionId"], "tones": "1#"})

    await talk(transport)
