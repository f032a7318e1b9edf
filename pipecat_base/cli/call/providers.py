"""Messages of each phone provider's media stream.

Sources: twilio.com/docs/voice/media-streams/websocket-messages, developers.telnyx.com/api-reference/websockets,
plivo.com/docs/voice/audio-streaming/audio-streaming, developer.exotel.com/docs/agentstream/stream-voicebot-applet.
Media are base64: mu-law at 8 kHz, Exotel's 16-bit PCM. Exotel's ``stop`` and ``mark`` are taken to be Twilio's, with
Exotel's names.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from pipecat_base.cli.call import audio
from pipecat_base.cli.call.audio import Samples
from pipecat_base.cli.call.figures import CallError

Message = dict[str, Any]
FRAME_MS = 20


class Provider:
    """A media stream, from the provider's side. Messages with media are numbered from 0."""

    name: str
    connected: ClassVar[Message] = {}
    media_event, mark_event, clear_event = "media", "mark", "clear"  # from the bot
    sequence_key, stream_key = "sequence_number", "stream_id"
    number_type: type[int] | type[str] = str
    id_prefixes = ("", "", "")
    media_fields: ClassVar[Message] = {"track": "inbound"}
    has_query = True  # the stream's address may have one: ?body= is the bot's body
    has_numbers = True
    frames_per_message = 1
    encode: Callable[[Samples], bytes] = staticmethod(audio.encode_mulaw)
    decode: Callable[[bytes], Samples] = staticmethod(audio.decode_mulaw)

    def __init__(self, caller: str = "", called: str = "", body: Any = None) -> None:
        if (caller or called) and not self.has_numbers:
            raise CallError(f"--from and --to: the streams of {self.name} have no numbers")
        self.caller, self.called, self.body = caller, called, body
        self.stream, self.call, self.account = (prefix + secrets.token_hex(16) for prefix in self.id_prefixes)

    def ids(self) -> Message:
        return {"streamId": self.stream, "callId": self.call, "accountId": self.account}

    def start(self) -> Message:
        raise NotImplementedError

    def opening(self) -> list[Message]:
        start = self._message("start", 1, start={**self.ids(), **self.start()})
        return [{"event": "connected", **self.connected}, start]

    def media(self, samples: Samples, number: int) -> Message:
        media = {
            **self.media_fields,
            "chunk": self.number_type(number + 1),
            "timestamp": str(number * FRAME_MS * self.frames_per_message),
            "payload": base64.b64encode(self.encode(samples)).decode(),
        }
        return self._message("media", number + 2, media=media)

    def closing(self, number: int) -> list[Message]:
        return [self._message("stop", number + 2, stop=self.ids())]

    def mark_played(self, name: str, number: int) -> Message:
        return self._message("mark", number + 2, mark={"name": name})

    def cleared(self) -> Message | None:
        """The response to a clear; None where the marks that were not reached are sent back instead."""
        return None

    def parse(self, raw: str | bytes) -> tuple[str, Any]:
        """A message from the bot: "media" with samples, "mark" with its name, "clear", or "other"."""
        try:
            message = json.loads(raw)
            event = message["event"]
            if event == self.media_event:
                return "media", self.decode(base64.b64decode(message["media"]["payload"]))
            if event == self.mark_event:
                return "mark", str(message["name"] if "name" in message else message["mark"]["name"])
            return "clear" if event == self.clear_event else "other", None
        except (ValueError, TypeError, KeyError):
            return "other", None

    def _message(self, event: str, sequence: int, **content: Any) -> Message:
        numbered = {self.sequence_key: self.number_type(sequence), self.stream_key: self.stream}
        return {"event": event, **numbered, **content}


class Twilio(Provider):
    """Twilio: neither queries nor headers, but ``<Parameter>`` elements, which are ``customParameters``."""

    name = "twilio"
    connected: ClassVar[Message] = {"protocol": "Call", "version": "1.0.0"}
    sequence_key, stream_key = "sequenceNumber", "streamSid"
    id_prefixes = ("MZ", "CA", "AC")
    has_query = False

    def __init__(self, caller: str = "", called: str = "", body: Any = None) -> None:
        if body is not None and not isinstance(body, dict):
            raise CallError("--body: twilio passes it on as <Parameter> elements, so it must be a JSON object")
        super().__init__(caller, called, body)

    def ids(self) -> Message:
        return {"accountSid": self.account, "callSid": self.call}

    def start(self) -> Message:
        body = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in (self.body or {}).items()
        }
        # The gateway's TwiML has the numbers under these names.
        numbers = {"from_number": self.caller, "to_number": self.called}
        return {
            "streamSid": self.stream,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": audio.PHONE_RATE, "channels": 1},
            "customParameters": {**body, **{name: value for name, value in numbers.items() if value}},
        }


class Telnyx(Provider):
    name = "telnyx"
    connected: ClassVar[Message] = {"version": "1.0.0"}
    id_prefixes = ("", "v3:", "")

    def ids(self) -> Message:
        return {"user_id": self.account, "call_control_id": self.call}

    def start(self) -> Message:
        media_format = {"encoding": "PCMU", "sample_rate": audio.PHONE_RATE, "channels": 1}
        return {"from": self.caller, "to": self.called, "media_format": media_format}


class Plivo(Provider):
    """Plivo: no ``connected``, no ``stop``, no numbers, and other names for the bot's messages."""

    name = "plivo"
    media_event, mark_event, clear_event = "playAudio", "checkpoint", "clearAudio"
    sequence_key, stream_key = "sequenceNumber", "streamId"
    number_type = int
    has_numbers = False

    def opening(self) -> list[Message]:
        media_format = {"encoding": "audio/x-mulaw", "sampleRate": audio.PHONE_RATE}
        start = {**self.ids(), "tracks": ["inbound"], "mediaFormat": media_format}
        return [{"event": "start", "sequenceNumber": 1, "start": start, "extra_headers": ""}]

    def closing(self, number: int) -> list[Message]:
        return []

    def mark_played(self, name: str, number: int) -> Message:
        return {"event": "playedStream", "streamId": self.stream, "name": name}

    def cleared(self) -> Message:
        return {"event": "clearedAudio", "streamId": self.stream}


class Exotel(Provider):
    """Exotel: PCM, a tenth of a second in a message."""

    name = "exotel"
    stream_key = "stream_sid"
    number_type = int
    media_fields: ClassVar[Message] = {}
    frames_per_message = 5

    def ids(self) -> Message:
        return {"call_sid": self.call, "account_sid": self.account}

    def start(self) -> Message:
        media_format = {"encoding": "base64", "sample_rate": str(audio.PHONE_RATE), "bit_rate": "128kbps"}
        return {"stream_sid": self.stream, "from": self.caller, "to": self.called, "media_format": media_format}

    def closing(self, number: int) -> list[Message]:
        return [self._message("stop", number + 2, stop={**self.ids(), "reason": "callended"})]

    @staticmethod
    def encode(samples: Samples) -> bytes:
        return samples.astype("<i2").tobytes()

    @staticmethod
    def decode(data: bytes) -> Samples:
        return np.frombuffer(data[: len(data) // 2 * 2], "<i2").astype(np.int16)


PROVIDERS: Mapping[str, type[Provider]] = {each.name: each for each in (Twilio, Telnyx, Plivo, Exotel)}
