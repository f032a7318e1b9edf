"""What each phone provider sends over its media stream, and takes.

Sources: twilio.com/docs/voice/media-streams/websocket-messages, developers.telnyx.com/api-reference/websockets,
plivo.com/docs/voice/audio-streaming/audio-streaming, developer.exotel.com/docs/agentstream/stream-voicebot-applet.
Media are base64: mu-law at 8 kHz, Exotel's 16-bit PCM. Exotel's ``stop`` and ``mark`` are taken to be Twilio's, with
Exotel's names.
"""

from __future__ import annotations

import base64
import json
import secrets
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipecat_base.cli.call import audio
from pipecat_base.cli.call.figures import CallError

Message = dict[str, Any]
MS = 20


@dataclass(frozen=True)
class Who:
    """The two numbers, empty when they are not told."""

    caller: str = ""
    called: str = ""


@dataclass(frozen=True)
class Heard:
    """What a message of the bot's asks of the provider: to play samples, to forget what is not played, to tell when a
    mark is reached."""

    samples: list[int] | None = None
    clears: bool = False
    mark: str | None = None


class Provider:
    """One stream of a provider's, from its side.

    Args:
        body: For the bot.
    """

    name: str
    encode: Callable[[Sequence[int]], bytes] = staticmethod(audio.encode_mulaw)
    decode: Callable[[bytes], list[int]] = staticmethod(audio.decode_mulaw)
    media_event, clear_event, mark_event = "media", "clear", "mark"
    has_query = True
    """Whether the address of a stream may have a query: then ``?body=`` is the bot's body."""
    has_numbers = True
    frames = 1
    """Of 20 ms, in a message."""

    def __init__(self, who: Who, body: Any = None) -> None:
        if (who.caller or who.called) and not self.has_numbers:
            raise CallError(f"--from and --to: the streams of {self.name} have no numbers")
        self.who = who
        self.body = body
        self.stream, self.call, self.account = (secrets.token_hex(16) for _ in range(3))

    def opening(self) -> list[str]:
        """What comes first."""
        return [json.dumps(message) for message in self._opening()]

    def media(self, samples: Sequence[int], number: int) -> str:
        """Message ``number``, from 0."""
        payload = base64.b64encode(self.encode(samples)).decode()
        return json.dumps(self._media(payload, number))

    def closing(self, number: int) -> list[str]:
        """What comes last, after ``number`` messages with media."""
        return [json.dumps(message) for message in self._closing(number)]

    def reached(self, name: str, number: int) -> str:
        """The answer to a mark."""
        return json.dumps(self._reached(name, number))

    def cleared(self) -> str | None:
        """The answer to a clear; None where the marks that were not reached come back instead."""
        return None

    def hear(self, raw: str | bytes) -> Heard | None:
        """What a message of the bot's asks for; None when it is not this provider's."""
        try:
            message = json.loads(raw)
            event = message["event"]
            if event == self.media_event:
                return Heard(self.decode(base64.b64decode(message["media"]["payload"])))
            if event == self.mark_event:
                return Heard(mark=str(message["name"] if "name" in message else message["mark"]["name"]))
            return Heard(clears=True) if event == self.clear_event else None
        except (ValueError, TypeError, KeyError):
            return None

    def _chunk(self, payload: str, number: int) -> Message:
        """What Twilio and Telnyx have alike in ``media``."""
        return {
            "track": "inbound",
            "chunk": str(number + 1),
            "timestamp": self._timestamp(number),
            "payload": payload,
        }

    def _timestamp(self, number: int) -> str:
        """Milliseconds from the stream's start to a message."""
        return str(number * MS * self.frames)

    def _opening(self) -> list[Message]:
        raise NotImplementedError

    def _media(self, payload: str, number: int) -> Message:
        raise NotImplementedError

    def _closing(self, number: int) -> list[Message]:
        raise NotImplementedError

    def _reached(self, name: str, number: int) -> Message:
        raise NotImplementedError


class Twilio(Provider):
    """It passes on neither queries nor headers: what ``<Parameter>`` elements say is in ``customParameters``."""

    name = "twilio"
    has_query = False

    def __init__(self, who: Who, body: Any = None) -> None:
        super().__init__(who, body)
        if body is not None and not isinstance(body, dict):
            raise CallError("--body: twilio passes it on as <Parameter> elements, so it must be a JSON object")
        self.stream, self.call, self.account = f"MZ{self.stream}", f"CA{self.call}", f"AC{self.account}"

    def _opening(self) -> list[Message]:
        # The gateway's TwiML has the numbers under these names.
        numbers = {"from_number": self.who.caller, "to_number": self.who.called}
        parameters = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in (self.body or {}).items()
        }
        parameters.update({name: value for name, value in numbers.items() if value})
        start = {
            "accountSid": self.account,
            "streamSid": self.stream,
            "callSid": self.call,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": audio.PHONE_RATE, "channels": 1},
            "customParameters": parameters,
        }
        return [
            {"event": "connected", "protocol": "Call", "version": "1.0.0"},
            {"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self.stream},
        ]

    def _media(self, payload: str, number: int) -> Message:
        media = self._chunk(payload, number)
        return {"event": "media", "sequenceNumber": str(number + 2), "media": media, "streamSid": self.stream}

    def _closing(self, number: int) -> list[Message]:
        stop = {"accountSid": self.account, "callSid": self.call}
        return [{"event": "stop", "sequenceNumber": str(number + 2), "stop": stop, "streamSid": self.stream}]

    def _reached(self, name: str, number: int) -> Message:
        return {"event": "mark", "sequenceNumber": str(number + 2), "streamSid": self.stream, "mark": {"name": name}}


class Telnyx(Provider):
    """Its names have underscores."""

    name = "telnyx"

    def __init__(self, who: Who, body: Any = None) -> None:
        super().__init__(who, body)
        self.call = f"v3:{self.call}"

    def _opening(self) -> list[Message]:
        start = {
            "user_id": self.account,
            "call_control_id": self.call,
            "from": self.who.caller,
            "to": self.who.called,
            "media_format": {"encoding": "PCMU", "sample_rate": audio.PHONE_RATE, "channels": 1},
        }
        return [
            {"event": "connected", "version": "1.0.0"},
            {"event": "start", "sequence_number": "1", "start": start, "stream_id": self.stream},
        ]

    def _media(self, payload: str, number: int) -> Message:
        media = self._chunk(payload, number)
        return {"event": "media", "sequence_number": str(number + 2), "media": media, "stream_id": self.stream}

    def _closing(self, number: int) -> list[Message]:
        stop = {"user_id": self.account, "call_control_id": self.call}
        return [{"event": "stop", "sequence_number": str(number + 2), "stop": stop, "stream_id": self.stream}]

    def _reached(self, name: str, number: int) -> Message:
        return {
            "event": "mark",
            "sequence_number": str(number + 2),
            "mark": {"name": name},
            "stream_id": self.stream,
        }


class Plivo(Provider):
    """No ``connected``, no ``stop``, no numbers, and names of its own for what the bot sends."""

    name = "plivo"
    media_event, clear_event, mark_event = "playAudio", "clearAudio", "checkpoint"
    has_numbers = False

    def _opening(self) -> list[Message]:
        start = {
            "streamId": self.stream,
            "callId": self.call,
            "accountId": self.account,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": audio.PHONE_RATE},
        }
        return [{"event": "start", "sequenceNumber": 1, "start": start, "extra_headers": ""}]

    def _media(self, payload: str, number: int) -> Message:
        media = {
            "track": "inbound",
            "chunk": number + 1,
            "timestamp": self._timestamp(number),
            "payload": payload,
        }
        return {"event": "media", "sequenceNumber": number + 2, "streamId": self.stream, "media": media}

    def _closing(self, number: int) -> list[Message]:
        return []

    def _reached(self, name: str, number: int) -> Message:
        return {"event": "playedStream", "streamId": self.stream, "name": name}

    def cleared(self) -> str:
        """What was not played is never told as played."""
        return json.dumps({"event": "clearedAudio", "streamId": self.stream})


class Exotel(Provider):
    """PCM, a tenth of a second in a message, and the numbers in the start."""

    name = "exotel"
    frames = 5

    @staticmethod
    def encode(samples: Sequence[int]) -> bytes:
        """16-bit, little-endian."""
        return struct.pack(f"<{len(samples)}h", *samples)

    @staticmethod
    def decode(data: bytes) -> list[int]:
        """The inverse."""
        return list(struct.unpack(f"<{len(data) // 2}h", data[: len(data) // 2 * 2]))

    def _opening(self) -> list[Message]:
        start = {
            "stream_sid": self.stream,
            "call_sid": self.call,
            "account_sid": self.account,
            "from": self.who.caller,
            "to": self.who.called,
            "media_format": {"encoding": "base64", "sample_rate": str(audio.PHONE_RATE), "bit_rate": "128kbps"},
        }
        return [
            {"event": "connected"},
            {"event": "start", "sequence_number": 1, "start": start, "stream_sid": self.stream},
        ]

    def _media(self, payload: str, number: int) -> Message:
        media = {"chunk": number + 1, "timestamp": self._timestamp(number), "payload": payload}
        return {"event": "media", "sequence_number": number + 2, "media": media, "stream_sid": self.stream}

    def _closing(self, number: int) -> list[Message]:
        stop = {"call_sid": self.call, "account_sid": self.account, "reason": "callended"}
        return [{"event": "stop", "sequence_number": number + 2, "stop": stop, "stream_sid": self.stream}]

    def _reached(self, name: str, number: int) -> Message:
        return {
            "event": "mark",
            "sequence_number": number + 2,
            "mark": {"name": name},
            "stream_sid": self.stream,
        }


PROVIDERS: Mapping[str, type[Provider]] = {each.name: each for each in (Twilio, Telnyx, Plivo, Exotel)}
