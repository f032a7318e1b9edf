"""Transports: plain data for any process, except MoqServer and WebSocketTransport, which hold live objects."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from starlette.websockets import WebSocket

PUBLIC_STUN = "stun:stun.l.google.com:19302"  # the default, as in pipecat's runner


class TransportKind(Enum):
    PLAIN = "plain"
    DAILY = "daily"
    WEBSOCKET = "websocket"
    WEBRTC = "webrtc"
    WHATSAPP = "whatsapp"
    LIVEKIT = "livekit"
    MOQ = "moq"


@dataclass(frozen=True)
class Caller:
    peer: str | None = None  # "ADDRESS", or "ADDRESS through PROXY"
    traceparent: str | None = None  # https://www.w3.org/TR/trace-context/

    @property
    def is_local(self) -> bool:
        """A local proxy without ``X-Forwarded-For`` makes all its callers local."""
        try:
            return ipaddress.ip_address(self.peer or "").is_loopback
        except ValueError:  # unknown, or "ADDRESS through PROXY"
            return False


UNKNOWN_CALLER = Caller()


@dataclass(frozen=True)
class NoTransport:
    """For a bot that connects to its callers without our help."""

    kind: ClassVar = TransportKind.PLAIN


@dataclass(frozen=True)
class DailyRoom:
    url: str
    token: str | None  # None for a public room
    kind: ClassVar = TransportKind.DAILY


@dataclass(frozen=True)
class LiveKitRoom:
    url: str
    room_name: str
    token: str = field(repr=False)  # the bot's
    kind: ClassVar = TransportKind.LIVEKIT


@dataclass(frozen=True)
class PendingWebRTC:
    """The caller will send its offer to ``/api/offer``, with the session's id."""

    kind: ClassVar = TransportKind.WEBRTC


@dataclass(frozen=True)
class MoqRelay:
    url: str = field(repr=False)  # holds a token
    namespace: str
    kind: ClassVar = TransportKind.MOQ


@dataclass(frozen=True)
class MoqServer:
    """The bot serves MoQ itself, and calls ``on_serving`` with the SHA-256 fingerprints (hex) of its certificates."""

    namespace: str
    port: int
    on_serving: Callable[[Sequence[str]], None] = field(repr=False)
    kind: ClassVar = TransportKind.MOQ


@dataclass(frozen=True)
class WebSocketTransport:
    """A WebSocket not yet accepted. ``transport_type`` None: pipecat detects the provider by its first messages."""

    websocket: WebSocket
    transport_type: str | None
    kind: ClassVar = TransportKind.WEBSOCKET


@dataclass(frozen=True)
class WhatsAppCall:
    """An incoming WhatsApp call: its offer, in a client's format, and the fields of its ``connect`` event."""

    offer: dict[str, Any]
    fields: dict[str, Any]
    kind: ClassVar = TransportKind.WHATSAPP


Transport = (
    NoTransport | DailyRoom | LiveKitRoom | PendingWebRTC | MoqRelay | MoqServer | WebSocketTransport | WhatsAppCall
)
KINDS = (NoTransport, DailyRoom, LiveKitRoom, PendingWebRTC, MoqRelay, MoqServer, WhatsAppCall)


def as_dict(transport: Transport) -> dict[str, Any]:
    """For another process: without what is live."""
    names = [item.name for item in dataclasses.fields(transport) if item.name != "on_serving"]
    return {"class": type(transport).__name__, **{name: getattr(transport, name) for name in names}}


def from_dict(content: Mapping[str, Any], **live: Any) -> Transport:
    kind: Any = next(kind for kind in KINDS if kind.__name__ == content["class"])
    found: Transport = kind(**{name: value for name, value in content.items() if name != "class"}, **live)
    return found
