"""Where a bot meets its caller. Data for any process, but for the two that hold what is open here already."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from starlette.websockets import WebSocket

PUBLIC_STUN = "stun:stun.l.google.com:19302"
"""For WebRTC peers that have no other server, as in pipecat's runner."""


class TransportKind(Enum):
    """How the caller reaches the bot."""

    PLAIN = "plain"
    DAILY = "daily"
    WEBSOCKET = "websocket"
    WEBRTC = "webrtc"
    WHATSAPP = "whatsapp"
    LIVEKIT = "livekit"
    MOQ = "moq"


@dataclass(frozen=True)
class Caller:
    """What a request says of who has sent it.

    Attributes:
        peer: The address that it came from.
        traceparent: The span that it is part of (https://www.w3.org/TR/trace-context/).
    """

    peer: str | None = None
    traceparent: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine. A local proxy without ``X-Forwarded-For`` makes all its callers local."""
        try:
            return ipaddress.ip_address(self.peer or "").is_loopback
        except ValueError:  # unknown, or "ADDRESS through PROXY"
            return False


UNKNOWN = Caller()


@dataclass(frozen=True)
class NoTransport:
    """The bot reaches its callers by itself."""

    kind: ClassVar = TransportKind.PLAIN


@dataclass(frozen=True)
class DailyRoom:
    """``token`` may be None, for a public room."""

    url: str
    token: str | None
    kind: ClassVar = TransportKind.DAILY


@dataclass(frozen=True)
class LiveKitRoom:
    """``token`` is the bot's own."""

    url: str
    room_name: str
    token: str = field(repr=False)
    kind: ClassVar = TransportKind.LIVEKIT


@dataclass(frozen=True)
class PendingWebRTC:
    """The caller will offer a WebRTC connection to ``/api/offer``, with the session's id.

    Attributes:
        waited: Seconds for which the session has waited for it already, with older code.
    """

    waited: float = 0.0
    kind: ClassVar = TransportKind.WEBRTC


@dataclass(frozen=True)
class MoqRelay:
    """A MoQ relay that the bot dials. Its URL holds a token."""

    url: str = field(repr=False)
    namespace: str
    kind: ClassVar = TransportKind.MOQ


@dataclass(frozen=True)
class MoqServer:
    """The bot serves MoQ itself, on this machine.

    ``on_serving`` is called once it does, with the SHA-256 fingerprints of its certificates, in hexadecimal.
    """

    namespace: str
    port: int
    on_serving: Callable[[Sequence[str]], None] = field(repr=False)
    kind: ClassVar = TransportKind.MOQ


@dataclass(frozen=True)
class WebSocketTransport:
    """A WebSocket that is not accepted yet.

    ``transport_type`` None lets pipecat recognise a phone provider by its first messages.
    """

    websocket: WebSocket
    transport_type: str | None
    kind: ClassVar = TransportKind.WEBSOCKET


@dataclass(frozen=True)
class WhatsAppCall:
    """A call that WhatsApp has announced: its offer, as a client sends one, and its ``connect`` event's fields."""

    offer: dict[str, Any]
    fields: dict[str, Any]
    kind: ClassVar = TransportKind.WHATSAPP


Transport = (
    NoTransport | DailyRoom | LiveKitRoom | PendingWebRTC | MoqRelay | MoqServer | WebSocketTransport | WhatsAppCall
)
