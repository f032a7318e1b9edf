"""A caller as Twilio's Media Streams has it.

``connected`` and ``start``, then a ``media`` message every 20 ms with mu-law at 8 kHz in base64, then ``stop``
(twilio.com/docs/voice/media-streams/websocket-messages).
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from typing import Any

from pipecat_base import audio
from pipecat_base.call.figures import FRAME_SECONDS, Call, CallError, is_loud


async def place(url: str, samples: list[int], tail: float) -> Call:
    """One call: say ``samples`` (8 kHz) in real time, listen ``tail`` seconds longer, hang up.

    Raises:
        CallError: it could not be made.
    """
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

    call = Call()
    stream = f"MZ{secrets.token_hex(16)}"
    try:
        async with connect(url, max_size=None) as websocket:
            for message in _opening(stream):
                await websocket.send(message)
            call.connected_at = time.monotonic()
            listening = asyncio.ensure_future(_listen(websocket, call))
            speaking = asyncio.ensure_future(_speak(websocket, stream, samples, call, tail))
            await asyncio.wait({listening, speaking}, return_when=asyncio.FIRST_COMPLETED)
            if listening.done():
                call.end(websocket.close_code, websocket.close_reason)
            for task in (listening, speaking):
                task.cancel()
            await asyncio.gather(listening, speaking, return_exceptions=True)
    except InvalidURI:
        raise CallError(f"{url} is not a WebSocket address (ws://host:port/ws)") from None
    except InvalidStatus as error:
        raise CallError.refused(url, error.response.status_code, bytes(error.response.body or b"")) from None
    except InvalidHandshake as error:
        raise CallError(f"{url} refused the call: {error}") from None
    except ConnectionClosed as error:
        call.end(*((error.rcvd.code, error.rcvd.reason) if error.rcvd else (None, None)))
    except OSError as error:
        raise CallError(
            f"nothing answers at {url}: {error.strerror or error}. Does the bot run there (pipecat-base dev)?"
        ) from None
    return call


def _opening(stream: str) -> list[str]:
    start: dict[str, Any] = {
        "accountSid": f"AC{secrets.token_hex(16)}",
        "streamSid": stream,
        "callSid": f"CA{secrets.token_hex(16)}",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": audio.PHONE_RATE, "channels": 1},
        "customParameters": {},
    }
    return [
        json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}),
        json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": stream}),
    ]


async def _speak(websocket: Any, stream: str, samples: list[int], call: Call, tail: float) -> None:
    started = time.monotonic()
    # A bot may answer in pieces of several frames: what is a multiple of a fifth of a second comes back whole.
    length = -(-len(samples) // (10 * audio.FRAME)) * 10 * audio.FRAME
    for offset in range(0, length, audio.FRAME):
        frame = samples[offset : offset + audio.FRAME]
        frame += [0] * (audio.FRAME - len(frame))
        payload = base64.b64encode(audio.encode_mulaw(frame)).decode()
        media = {"track": "inbound", "chunk": str(call.sent + 1), "timestamp": str(call.sent * 20), "payload": payload}
        message = {"event": "media", "sequenceNumber": str(call.sent + 2), "media": media, "streamSid": stream}
        await websocket.send(json.dumps(message))
        if call.spoke_at is None and is_loud(frame):
            call.spoke_at = time.monotonic()
        call.sent += 1
        # By the clock, not by sleeps that add up.
        await asyncio.sleep(max(0.0, started + call.sent * FRAME_SECONDS - time.monotonic()))
    await asyncio.sleep(tail)
    await websocket.send(json.dumps({"event": "stop", "streamSid": stream}))


async def _listen(websocket: Any, call: Call) -> None:
    async for raw in websocket:
        try:
            message = json.loads(raw)
            payload = message["media"]["payload"] if message["event"] == "media" else None
        except (ValueError, TypeError, KeyError):
            call.other += 1
            continue
        if payload is not None:
            call.hear(audio.decode_mulaw(base64.b64decode(payload)), time.monotonic())
