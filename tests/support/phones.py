"""The four phone providers' true media-stream protocols, from the provider's side.

Twilio, Telnyx and Exotel send ``connected`` and then ``start``; Plivo only ``start``. Media are 20 ms frames in
base64: mu-law at 8 kHz, except Exotel's 16-bit PCM.
"""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from pipecat_base.cli.call.audio import decode_mulaw, encode_mulaw
from tests.support.launchers import Launcher
from tests.support.tones import tone


def to_pcm(samples: list[int]) -> bytes:
    return struct.pack(f"<{len(samples)}h", *samples)


def from_pcm(data: bytes) -> list[int]:
    return list(struct.unpack(f"<{len(data) // 2}h", data))


@dataclass(frozen=True)
class Provider:
    name: str
    opening: list[dict[str, Any]]
    media: Callable[[str, int], dict[str, Any]]
    """(payload, frame number) -> message to the bot."""
    reply: Callable[[dict[str, Any]], str | None]
    """The payload of a message of the bot's, or None when it is not media."""
    encode: Callable[[list[int]], bytes] = encode_mulaw
    decode: Callable[[bytes], list[int]] = lambda data: decode_mulaw(data).tolist()

    def frame(self, samples: list[int], number: int) -> str:
        return json.dumps(self.media(base64.b64encode(self.encode(samples)).decode(), number))

    def heard(self, raw: str | bytes) -> list[int]:
        payload = self.reply(json.loads(raw))
        return self.decode(base64.b64decode(payload)) if payload else []


def media_payload(message: dict[str, Any]) -> str | None:
    return message["media"]["payload"] if message.get("event") == "media" else None


def twilio() -> Provider:
    start = {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {},
    }
    return Provider(
        "twilio",
        [
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": "MZ1"},
        ],
        lambda payload, n: {
            "event": "media",
            "sequenceNumber": str(n + 2),
            "streamSid": "MZ1",
            "media": {"track": "inbound", "chunk": str(n + 1), "timestamp": str(20 * n), "payload": payload},
        },
        media_payload,
    )


def telnyx() -> Provider:
    start = {
        "call_control_id": "v3:call",
        "from": "+15550001",
        "to": "+15550002",
        "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
    }
    return Provider(
        "telnyx",
        [
            {"event": "connected", "version": "1.0.0"},
            {"event": "start", "sequence_number": "1", "stream_id": "stream-1", "start": start},
        ],
        lambda payload, n: {
            "event": "media",
            "sequence_number": str(n + 2),
            "stream_id": "stream-1",
            "media": {"track": "inbound", "chunk": str(n + 1), "timestamp": str(20 * n), "payload": payload},
        },
        media_payload,
    )


def plivo() -> Provider:
    media_format = {"encoding": "audio/x-mulaw", "sampleRate": 8000}
    start = {"streamId": "stream-1", "callId": "call-1", "accountId": "1", "mediaFormat": media_format}
    return Provider(
        "plivo",
        [{"event": "start", "sequenceNumber": 0, "start": start, "extra_headers": ""}],
        lambda payload, n: {
            "event": "media",
            "sequenceNumber": n + 1,
            "streamId": "stream-1",
            "media": {"track": "inbound", "chunk": n + 1, "timestamp": str(20 * n), "payload": payload},
        },
        lambda message: message["media"]["payload"] if message.get("event") == "playAudio" else None,
    )


def exotel() -> Provider:
    start = {
        "stream_sid": "stream-1",
        "call_sid": "call-1",
        "account_sid": "account-1",
        "from": "+15550001",
        "to": "+15550002",
        "media_format": {"encoding": "base64", "sample_rate": "8000", "bit_rate": "128kbps"},
    }
    return Provider(
        "exotel",
        [{"event": "connected"}, {"event": "start", "sequence_number": 1, "stream_sid": "stream-1", "start": start}],
        lambda payload, n: {
            "event": "media",
            "sequence_number": n + 2,
            "stream_sid": "stream-1",
            "media": {"chunk": n + 1, "timestamp": str(20 * n), "payload": payload},
        },
        media_payload,
        to_pcm,
        from_pcm,
    )


PROVIDERS = [twilio(), telnyx(), plivo(), exotel()]


FRAME = 160


def speak(websocket: ClientConnection, provider: Provider, samples: list[int]) -> None:
    """In real time, as a phone network does."""
    started = time.monotonic()
    for number in range(len(samples) // FRAME):
        websocket.send(provider.frame(samples[number * FRAME : (number + 1) * FRAME], number))
        time.sleep(max(0.0, started + (number + 1) * 0.02 - time.monotonic()))


def call(
    launcher: Launcher, provider: Provider, frequency: float, seconds: float = 1.5, tail: float = 0.3
) -> list[int]:
    """Say a tone; what came back until ``tail`` seconds after it."""
    heard: list[int] = []
    with connect(launcher.websocket_url(), proxy=None) as websocket:

        def listen() -> None:
            try:
                for raw in websocket:
                    heard.extend(provider.heard(raw))
            except ConnectionClosed:
                pass

        listener = threading.Thread(target=listen)
        listener.start()
        for message in provider.opening:
            websocket.send(json.dumps(message))
        speak(websocket, provider, tone(frequency, seconds))
        time.sleep(tail)
    listener.join(10)
    return heard
