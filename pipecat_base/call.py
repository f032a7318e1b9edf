"""``pipecat-base call``: ring a running bot as Twilio's Media Streams would, and measure what comes back.

The protocol is Twilio's: ``connected`` and ``start``, then a ``media`` message every 20 ms with mu-law at 8 kHz in
base64, then ``stop`` (twilio.com/docs/voice/media-streams/websocket-messages).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from pipecat_base import audio

FRAME_SECONDS = 0.02
QUIET = 500
"""Peak below which a frame counts as silence, of 32767."""


class CallError(Exception):
    """The call could not be made or was cut; one line for a person."""


@dataclass
class Call:
    """What one call sent and heard."""

    sent: int = 0
    """Frames of 20 ms."""
    connected_at: float = 0.0
    spoke_at: float | None = None
    """When the first frame that is not silence was sent."""
    heard: list[int] = field(default_factory=list)
    """Samples at 8 kHz."""
    heard_at: float | None = None
    """When the first audio came."""
    heard_speech_at: float | None = None
    """When the first audio that is not silence came."""
    last_at: float = 0.0
    longest_gap: float = 0.0
    """Seconds between two messages with audio."""
    other: int = 0
    """Messages that are not Twilio's."""
    closed: str | None = None
    """How the bot ended the call, when it was not the caller."""

    @property
    def received(self) -> int:
        """Frames of 20 ms."""
        return len(self.heard) // audio.FRAME

    def hear(self, samples: list[int], now: float) -> None:
        """Note audio that came in."""
        if self.heard_at is None:
            self.heard_at = now
        else:
            self.longest_gap = max(self.longest_gap, now - self.last_at)
        self.last_at = now
        if self.heard_speech_at is None and _is_loud(samples):
            self.heard_speech_at = now
        self.heard += samples

    def line(self, number: int) -> str:
        """What is printed of it."""
        ended = f", ended by the bot: {self.closed}" if self.closed else ""
        if self.heard_at is None:
            other = f" but {self.other} messages that are not Twilio's" if self.other else ""
            return f"call {number}: sent {self.sent} frames, heard nothing{other}{ended}"
        first = (self.heard_at - self.connected_at) * 1000
        lost = max(0, self.sent - self.received)
        parts = [
            f"call {number}: sent {self.sent} frames, received {self.received}",
            f"lost {lost} ({100 * lost / max(1, self.sent):.1f} %)",
            f"first audio after {first:.0f} ms",
        ]
        if self.heard_speech_at is not None and self.spoke_at is not None:
            parts.append(f"speech came back after {(self.heard_speech_at - self.spoke_at) * 1000:.0f} ms")
        parts.append(f"longest gap {self.longest_gap * 1000:.0f} ms")
        return ", ".join(parts) + ended


def main(options: argparse.Namespace) -> int:
    """Place the calls; 0 when every one heard something."""
    try:
        samples = audio.read_wav(options.wav)
    except (OSError, ValueError) as error:
        print(f"pipecat-base call: {error}", file=sys.stderr)
        return 1
    seconds = len(samples) / audio.PHONE_RATE
    print(f"Calling {options.url} ({options.calls} at once) with {options.wav}, {seconds:.1f} s")
    try:
        calls = asyncio.run(_place(options.url, samples, options.calls, options.tail))
    except CallError as error:
        print(f"pipecat-base call: {error}", file=sys.stderr)
        return 1
    for number, call in enumerate(calls, 1):
        print(call.line(number))
    sent, received = sum(call.sent for call in calls), sum(call.received for call in calls)
    print(f"calls {len(calls)}, frames sent {sent}, received {received}, lost {max(0, sent - received)}")
    if calls[0].heard:
        out = options.out or f"{options.wav.removesuffix('.wav')}.reply.wav"
        audio.write_wav(out, calls[0].heard)
        print(f"Wrote what call 1 heard to {out}")
    return 0 if all(call.heard for call in calls) else 1


async def _place(url: str, samples: list[int], count: int, tail: float) -> list[Call]:
    return await asyncio.gather(*(place(url, samples, tail) for _ in range(count)))


async def place(url: str, samples: list[int], tail: float) -> Call:
    """One call: say ``samples`` in real time, listen ``tail`` seconds longer, hang up."""
    from websockets.asyncio.client import connect
    from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

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
            if not speaking.done():
                call.closed = f"{websocket.close_code} {websocket.close_reason}".strip()
            for task in (listening, speaking):
                task.cancel()
            await asyncio.gather(listening, speaking, return_exceptions=True)
    except InvalidURI:
        raise CallError(f"{url} is not a WebSocket address (ws://host:port/ws)") from None
    except InvalidHandshake as error:
        raise CallError(f"{url} refused the call: {error}") from None
    except ConnectionClosed as error:
        call.closed = f"{error.rcvd.code} {error.rcvd.reason}".strip() if error.rcvd else "without a close frame"
    except OSError as error:
        raise CallError(
            f"nothing answers at {url}: {error.strerror or error}. Is the bot running (make run)?"
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
        if call.spoke_at is None and _is_loud(frame):
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


def _is_loud(samples: list[int]) -> bool:
    return max(map(abs, samples), default=0) > QUIET
