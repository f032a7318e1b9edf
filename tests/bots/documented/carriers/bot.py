"""Reads a phone provider's first messages, and makes the serializer and the transport by hand."""

import os

from fastapi import WebSocket
from loguru import logger

from parts import talk
from pipecat.runner.types import WebSocketRunnerArguments
from pipecat.runner.utils import parse_telephony_websocket
from pipecat.serializers.exotel import ExotelFrameSerializer
from pipecat.serializers.plivo import PlivoFrameSerializer
from pipecat.serializers.telnyx import TelnyxFrameSerializer
from pipecat.serializers.twilio import TwilioFrameSerializer
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams, FastAPIWebsocketTransport


def serializer_for(provider, call):
    if provider == "twilio":
        return TwilioFrameSerializer(
            stream_sid=call["stream_id"],
            call_sid=call["call_id"],
            account_sid=os.getenv("TWILIO_ACCOUNT_SID"),
            auth_token=os.getenv("TWILIO_AUTH_TOKEN"),
        )
    if provider == "telnyx":
        return TelnyxFrameSerializer(
            stream_id=call["stream_id"],
            call_control_id=call["call_id"],
            outbound_encoding=call["outbound_encoding"],
            inbound_encoding="PCMU",
            api_key=os.getenv("TELNYX_API_KEY"),
        )
    if provider == "plivo":
        return PlivoFrameSerializer(
            stream_id=call["stream_id"],
            call_id=call["call_id"],
            auth_id=os.getenv("PLIVO_AUTH_ID"),
            auth_token=os.getenv("PLIVO_AUTH_TOKEN"),
        )
    return ExotelFrameSerializer(stream_sid=call["stream_id"], call_sid=call["call_id"])


async def answer(websocket: WebSocket):
    provider, call = await parse_telephony_websocket(websocket)
    custom = call.get("body", {})
    logger.info(f"{provider} rings from {call.get('from')}, campaign {custom.get('campaign_id')}")
    transport = FastAPIWebsocketTransport(
        websocket=websocket,
        params=FastAPIWebsocketParams(
            audio_in_enabled=True,
            audio_out_enabled=True,
            add_wav_header=False,
            serializer=serializer_for(provider, call),
        ),
    )
    await talk(transport, 8000)


async def bot(args: WebSocketRunnerArguments):
    try:
        await answer(args.websocket)
        logger.info("The call is over")
    except Exception as error:
        logger.exception(f"The call failed: {error}")
        raise
