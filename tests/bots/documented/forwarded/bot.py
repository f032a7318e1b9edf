"""Takes a call of Twilio's over SIP into the room that the session has."""

import os

from loguru import logger
from twilio.rest import Client

from parts import talk
from pipecat.runner.types import DailyRunnerArguments
from pipecat.transports.daily.transport import DailyParams, DailyTransport


async def converse(room_url: str, token: str, call_sid: str, sip_endpoint: str):
    twilio = Client(os.getenv("TWILIO_ACCOUNT_SID"), os.getenv("TWILIO_AUTH_TOKEN"))
    transport = DailyTransport(
        room_url,
        token,
        "Forwarded",
        DailyParams(audio_in_enabled=True, audio_out_enabled=True, video_out_enabled=False, transcription_enabled=True),
    )
    is_forwarded = False

    @transport.event_handler("on_dialin_ready")
    async def ready(transport, data):
        nonlocal is_forwarded
        if not is_forwarded:
            is_forwarded = True
            twilio.calls(call_sid).update(twiml=f"<Response><Dial><Sip>{sip_endpoint}</Sip></Dial></Response>")

    await talk(transport)


async def bot(args: DailyRunnerArguments):
    logger.info(f"To forward: {args.body['call_sid']}")
    await converse(args.room_url, args.token, args.body["call_sid"], args.body["sip_endpoint"])
