"""What a call sent and heard, and the line that is printed of it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field

from pipecat_base import audio

FRAME_SECONDS = 0.02
QUIET = 500
"""Peak below which a frame counts as silence, of 32767."""


class CallError(Exception):
    """The call could not be made; one line for a person."""

    @classmethod
    def refused(cls, url: str, status: int, body: bytes) -> CallError:
        """The bot's answer: ``{"error": {"code", "message"}}``, when it is a launcher's."""
        words = " ".join(body.decode(errors="replace").split())[:200]
        with contextlib.suppress(ValueError, TypeError, KeyError):
            error = json.loads(body)["error"]
            words = f"{error['code']}: {error['message']}"
        return cls(f"{url.split('?')[0]} refused the call: {status} {words}".strip())


@dataclass
class Call:
    """What one call sent and heard."""

    sent: int = 0
    """Frames of 20 ms, of the recording."""
    rate: int = audio.PHONE_RATE
    """Samples a second of what is heard."""
    connected_at: float = 0.0
    spoke_at: float | None = None
    """When the first frame that is not silence was sent."""
    heard: list[int] = field(default_factory=list)
    """Samples."""
    heard_at: float | None = None
    """When the first audio came."""
    heard_speech_at: float | None = None
    """When the first audio that is not silence came."""
    last_at: float = 0.0
    gaps: list[float] = field(default_factory=list)
    """Seconds between two messages with audio."""
    lost_packets: int | None = None
    """As RTP counts them; None where there is no RTP."""
    other: int = 0
    """Messages that are not Twilio's."""
    closed: str | None = None
    """How the bot ended the call, when it was not the caller."""
    was_cut: bool = False
    """Whether that was no orderly end."""

    @property
    def received(self) -> int:
        """Frames of 20 ms."""
        return round(len(self.heard) / self.rate / FRAME_SECONDS)

    @property
    def lost(self) -> int:
        """Frames of 20 ms that did not come: what the network counted, else what is missing from an echo."""
        return max(0, self.sent - self.received) if self.lost_packets is None else self.lost_packets

    @property
    def longest_gap(self) -> float:
        """Seconds between two messages with audio, at most."""
        return max(self.gaps, default=0.0)

    def p99_gap(self) -> float:
        """Seconds that 99 of 100 such gaps do not exceed."""
        return sorted(self.gaps)[int(0.99 * len(self.gaps))] if self.gaps else 0.0

    def end(self, code: int | None, reason: str | None) -> None:
        """Note with which code the bot's side closed the WebSocket; 1006 and None are none."""
        self.was_cut = code not in (1000, 1001)
        self.closed = "without a close frame" if code in (None, 1006) else f"{code} {reason or ''}".strip()

    def hear(self, samples: list[int], now: float) -> None:
        """Note audio that came in."""
        if self.heard_at is None:
            self.heard_at = now
        else:
            self.gaps.append(now - self.last_at)
        self.last_at = now
        if self.heard_speech_at is None and is_loud(samples):
            self.heard_speech_at = now
        self.heard += samples

    def line(self, number: int) -> str:
        """What is printed of it."""
        ended = f", {'cut off' if self.was_cut else 'ended by the bot'}: {self.closed}" if self.closed else ""
        if self.heard_at is None:
            other = f" but {self.other} messages that are not Twilio's" if self.other else ""
            return f"call {number}: sent {self.sent} frames, heard nothing{other}{ended}"
        first = (self.heard_at - self.connected_at) * 1000
        parts = [
            f"call {number}: sent {self.sent} frames, received {self.received}",
            f"lost {self.lost} ({100 * self.lost / max(1, self.sent):.1f} %)",
            f"first audio after {first:.0f} ms",
        ]
        if self.heard_speech_at is not None and self.spoke_at is not None:
            parts.append(f"speech came back after {(self.heard_speech_at - self.spoke_at) * 1000:.0f} ms")
        parts.append(f"longest gap {self.longest_gap * 1000:.0f} ms")
        return ", ".join(parts) + ended


def is_loud(samples: list[int]) -> bool:
    """Whether it is not silence."""
    return max(map(abs, samples), default=0) > QUIET
