"""Figures of one call: what it sent and heard, as a line for people and as JSON."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from typing import Any

from pipecat_base.cli.call import audio, echo, speech
from pipecat_base.cli.call.audio import Samples
from pipecat_base.cli.call.echo import EchoMatch
from pipecat_base.cli.call.speech import Conversation
from pipecat_base.cli.call.track import FRAME_SECONDS, Track

SEE_LOG = "its log says why"
UNAUTHORIZED = "unauthorized"  # a 403 that a key may avoid, as it may each 401: /start answers with a token


class CallError(Exception):
    """The call could not be made; one line for a person."""

    @classmethod
    def refused(cls, address: str, status: int, body: bytes, *, key: str | None = None) -> CallError:
        """Read an error response: a launcher's ``{"error": {"code", "message"}}``, a gateway's flat one, or text."""
        words, code = " ".join(body.decode(errors="replace").split())[:200], ""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            content = json.loads(body)
            error = content["error"] if isinstance(content["error"], dict) else content
            code = str(error.get("code", ""))
            words = f"{code}: {error.get('message', error.get('error'))}"
        hint = ""
        if status == 401 or code == UNAUTHORIZED:
            hint = " (call with --key KEY)" if key is None else " (not with this --key)"
        return cls(f"{address} refused the call: {status} {words}".strip() + hint)


class CallFigures:
    """Audio and events of one call, on a clock that begins when it is connected."""

    def __init__(self, rate: int = audio.PHONE_RATE, heard_rate: int = audio.PHONE_RATE) -> None:
        self.said = Track(rate)
        self.heard = Track(heard_rate)
        self.dialled_at = self.connected_at = time.monotonic()
        self.sent = 0  # frames, with those of silence
        self.lost_packets: int | None = None  # as RTP counts them
        self.other = 0  # messages that are not in the provider's protocol
        self.unsaid: list[str] = []  # recordings whose condition was not met
        self.closed: str | None = None  # how the bot ended the call
        self.was_cut = False
        self.gaps: list[float] = []  # seconds between two messages with audio
        self._heard_at: float | None = None
        self._last_at = 0.0
        self._received = 0

    @property
    def received(self) -> int:
        # Frames, with those that were cleared before they were played.
        return round(self._received / self.heard.rate / FRAME_SECONDS)

    @functools.cached_property
    def echo(self) -> EchoMatch | None:
        """The echo, once the call is over; None when the bot talks."""
        return echo.find(self.said, self.heard)

    @functools.cached_property
    def conversation(self) -> Conversation:
        return speech.measure(self.said, self.heard)

    @property
    def lost(self) -> int:
        """Packets that the network lost, or frames that an echo lacks."""
        if self.lost_packets is not None:
            return self.lost_packets
        return self.echo.lost if self.echo is not None else 0

    @property
    def longest_gap(self) -> float:
        return max(self.gaps, default=0.0)

    def p99_gap(self) -> float:
        return speech.percentile(self.gaps, 99) if self.gaps else 0.0

    @property
    def silent_for(self) -> float:
        """Seconds since the last audio, with silence, arrived; 0 before the first."""
        return 0.0 if self._heard_at is None else self.now() - self._last_at

    @property
    def heard_something(self) -> bool:
        return self.echo is not None or self.conversation.first_speech is not None

    def connect(self) -> None:
        self.connected_at = time.monotonic()

    def now(self) -> float:
        return time.monotonic() - self.connected_at

    def record_close(self, code: int | None, reason: str | None) -> None:
        """Record the bot's close frame; with 1006 or None it sent none."""
        self.was_cut = code not in (1000, 1001)
        self.closed = "without a close frame" if code in (None, 1006) else f"{code} {reason or ''}".strip()
        if code == 1011:
            self.closed += f"; {SEE_LOG}"

    def add_heard(self, samples: Samples) -> None:
        now = self.now()
        if self._heard_at is None:
            self._heard_at = now
        else:
            self.gaps.append(now - self._last_at)
        self._last_at = now
        self._received += len(samples)
        self.heard.add(samples, now)

    def line(self, number: int) -> str:
        ended = f", {'cut off' if self.was_cut else 'ended by the bot'}: {self.closed}" if self.closed else ""
        if self.unsaid:
            ended += f"; not said, as what it waits for did not happen: {', '.join(self.unsaid)}"
        if self._heard_at is None:
            other = f" but {self.other} messages that are not the provider's" if self.other else ""
            return f"call {number}: sent {self.sent} frames, heard nothing{other}{ended}"
        about = self._about_echo(self.echo) if self.echo is not None else self._about_talk(self.conversation)
        return f"call {number}: {about}{ended}"

    def _about_echo(self, found: EchoMatch) -> str:
        lost = f"lost {self.lost} ({100 * self.lost / max(1, self.sent):.1f} %)"
        return (
            f"an echo: sent {self.sent} frames, received {self.received}, {lost},"
            f" first audio after {_ms(self._heard_at)}, speech came back after {_ms(found.delay)},"
            f" longest gap {_ms(self.longest_gap)}"
        )

    def _about_talk(self, talk: Conversation) -> str:
        connected, first = _ms(self.connected_at - self.dialled_at), _ms(self._heard_at)
        parts = [f"connected after {connected}", f"first audio after {first}"]
        if talk.first_speech is None:
            return ", ".join(["heard silence alone", *parts])
        parts.append(f"first word after {_ms(talk.first_speech)}")
        latencies = [answer.latency for answer in talk.answers]
        asked = len(latencies) + talk.unanswered
        if latencies:
            middle, slow = (speech.percentile(latencies, percent) for percent in (50, 95))
            parts.append(f"answered {len(latencies)} of {asked} after {_ms(middle)} (p50), {_ms(slow)} (p95)")
        elif asked:
            parts.append(f"answered none of {asked}")
        if talk.interruptions:
            stopped = [i.stopped for i in talk.interruptions if i.stopped is not None]
            heeded = f"heeded {len(stopped)} of {len(talk.interruptions)} interruptions"
            parts.append(f"{heeded}{f' after {_ms(max(stopped))} at most' if stopped else ''}")
        if self.lost_packets:
            parts.append(f"lost {self.lost_packets} packets")
        parts.append(f"spoke for {talk.spoken:.1f} s at {talk.level:.0f} dBFS")
        return f"the bot talks: {', '.join(parts)}"

    def document(self, number: int) -> dict[str, Any]:
        talk = self.conversation
        latencies = [answer.latency for answer in talk.answers]
        kind = "nothing" if self._heard_at is None else "echo" if self.echo else "talk" if talk.spoken else "silence"
        return {
            "call": number,
            "kind": kind,
            "connected_ms": _round_ms(self.connected_at - self.dialled_at),
            "first_audio_ms": _round_ms(self._heard_at),
            "first_speech_ms": _round_ms(talk.first_speech),
            "answers": [
                {"asked_s": round(a.asked, 2), "began_s": round(a.began, 2), "ms": _round_ms(a.latency)}
                for a in talk.answers
            ],
            "answer_p50_ms": _round_ms(speech.percentile(latencies, 50)) if latencies else None,
            "answer_p95_ms": _round_ms(speech.percentile(latencies, 95)) if latencies else None,
            "unanswered": talk.unanswered,
            "interruptions": [
                {"at_s": round(i.at, 2), "heeded": i.stopped is not None, "stopped_ms": _round_ms(i.stopped)}
                for i in talk.interruptions
            ],
            "bot_speech_s": round(talk.spoken, 2),
            "bot_level_dbfs": None if talk.level is None else round(talk.level, 1),
            "echo_delay_ms": _round_ms(self.echo.delay) if self.echo else None,
            "frames_sent": self.sent,
            "frames_received": self.received,
            "frames_lost": self.lost if self.echo or self.lost_packets is not None else None,
            "longest_gap_ms": _round_ms(self.longest_gap),
            "unsaid": self.unsaid,
            "ended_by_bot": self.closed,
            "cut_off": self.was_cut,
        }


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def _round_ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
