"""Peer connections: answered, found by ``pc_id``, watched until the client is gone, and always closed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aiortc.rtcicetransport import RTCIceCandidate
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection

from pipecat_base.bot.webrtc.destinations import Destinations, Network
from pipecat_base.bot.webrtc.ice import IceServers
from pipecat_base.bot.webrtc.offers import MOST_CANDIDATES, Offer, Trickle, candidates_in
from pipecat_base.errors import Malformed, Refusal, UnknownPeer
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import UNKNOWN, Caller

LOOK = 0.25
"""Seconds between looks at a connection: aiortc learns of a client that vanished after half a minute."""
GLANCE = 0.02
"""Seconds between looks at one that is about to be closed."""
HANDSHAKE = 0.5
"""Seconds that a connection which is to be closed may still take to come about."""
OWN_END = 1.0
"""Seconds that a bot gets to end by itself once its peer is gone; pipecat tells it."""
DISCONNECT_TIMEOUT = 1.0
"""Seconds that closing a connection may take."""
MEASURE = 10.0
"""Seconds between facts of what a peer has received."""

Note = Callable[[str, Mapping[str, Any]], None]
"""Takes a fact's name and its fields."""


class PeerConnection:
    """One client's connection.

    Args:
        destinations: Where it may send packets.
        connect_timeout: Seconds for it to come about.
        disconnect_timeout: Seconds of silence after which the client is gone.
    """

    def __init__(
        self,
        connection: SmallWebRTCConnection,
        destinations: Destinations,
        *,
        connect_timeout: float,
        disconnect_timeout: float,
    ) -> None:
        self.connection = connection
        self._destinations = destinations
        self.candidates = 0
        """Those of the last offer, and those that came after it."""
        self._connect_timeout = connect_timeout
        self._disconnect_timeout = disconnect_timeout
        self._renegotiating = asyncio.Lock()
        self._closed = False
        self._made_at = time.monotonic()

    @property
    def pc_id(self) -> str:
        """The id that the client names it by; a restart changes it."""
        return str(self.connection.pc_id)

    async def begin(self, offer: Offer) -> None:
        """Answer the first offer of a client."""
        self.candidates = candidates_in(offer.sdp)
        await self.connection.initialize(sdp=self._destinations.begin(offer.sdp), type="offer")
        self._destinations.guard(self.connection.pc)

    async def renegotiate(self, offer: Offer) -> None:
        """Answer another offer of the same client, after those that are being answered.

        Raises:
            UnknownPeer: it was closed, before or meanwhile.
        """
        async with self._renegotiating:
            self._check_open()
            self.candidates = candidates_in(offer.sdp)
            sdp = self._destinations.begin(offer.sdp)
            try:
                await self.connection.renegotiate(sdp=sdp, type="offer", restart_pc=offer.restart)
            finally:
                self._destinations.guard(self.connection.pc)
            if self._closed:
                # A restart tells the bot that its client is gone, and makes a new connection: it may outlive the bot.
                await self._disconnect()
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise UnknownPeer("This connection's call has ended.", field="pc_id")

    async def trickle(self, candidates: Sequence[RTCIceCandidate | None]) -> None:
        """Add candidates that came after the offer, but for those that are not used."""
        for candidate in candidates:
            if candidate is None or self._destinations.takes(candidate):
                await self.connection.add_ice_candidate(candidate)
            else:
                logger.debug("A candidate is not used")

    async def measure(self, emit: Note) -> None:
        """Tell when it is connected, and of what it has received ever since."""
        # A restart makes another pc.
        while self.connection.pc.connectionState != "connected":  # noqa: ASYNC110
            await asyncio.sleep(GLANCE)
        emit("webrtc_connected", {"connect_secs": time.monotonic() - self._made_at})
        while True:
            await asyncio.sleep(MEASURE)
            await self.tell_stats(emit)

    async def tell_stats(self, emit: Note) -> None:
        """Tell what it has received so far. A call does not end by what cannot be told."""
        try:
            received, lost, jitter = await self._counted()
        except Exception as error:
            logger.debug(f"Peer {self.pc_id}: no statistics: {type(error).__name__}")
            return
        if received:
            fields = {"packets_received": received, "packets_lost": lost, "jitter_secs": jitter, "peer": self.pc_id}
            emit("webrtc_stats", fields)

    async def _counted(self) -> tuple[int, int, float]:
        """Packets received, packets lost, and the worst jitter in seconds."""
        received, lost, jitter = 0, 0, 0.0
        for transceiver in self.connection.pc.getTransceivers():
            for entry in (await transceiver.receiver.getStats()).values():
                if entry.type == "inbound-rtp":
                    received += entry.packetsReceived
                    lost += max(0, entry.packetsLost)
                    jitter = max(jitter, entry.jitter / _clock_rate(transceiver))
        return received, lost, jitter

    async def until_left(self) -> None:
        """Wait until the client is gone and the bot has had a moment to end because of it."""
        logger.info(f"The peer is gone: {await self._until_gone()}")
        await asyncio.sleep(OWN_END)

    async def _until_gone(self) -> str:
        """The reason, for the log."""
        loop = asyncio.get_running_loop()
        looked_at: Any = None
        since, received, connected = 0.0, -1, False
        while True:
            now, pc = loop.time(), self.connection.pc
            if pc is not looked_at or self._renegotiating.locked():  # the first look, or the first after a restart
                looked_at, since, received, connected = pc, now, -1, False
            elif pc.connectionState in ("closed", "failed"):
                return f"its connection is {pc.connectionState}"
            elif pc.connectionState == "connected":
                before, received = received, await self._received(pc, received)
                if not connected or received != before:
                    since, connected = now, True
                elif now - since > self._disconnect_timeout:
                    return f"it was silent for {self._disconnect_timeout:g} s"
            elif not connected and now - since > self._connect_timeout:
                return f"it did not connect within {self._connect_timeout:g} s"
            await asyncio.sleep(LOOK)

    @staticmethod
    async def _received(pc: Any, before: int) -> int:
        """A number that changes while the client lives: a live one sends some media, or its reports, all the time."""
        for transceiver in pc.getTransceivers()[:1]:
            stats = (await transceiver.receiver.getStats()).values()
            # Everything that shares its transport, data and the reports of other media too.
            return sum(getattr(entry, "bytesReceived", 0) for entry in stats if entry.type == "transport")
        # Data alone is not counted anywhere public: ICE's own consent checks are left to notice, in half a minute.
        return before + 1

    async def close(self) -> None:
        """Tell the client that the bot has left, and close; within a bound.

        A client that is still connecting can be told of nothing, so it gets a moment to have done so.
        """
        self._closed = True
        for _ in range(round(HANDSHAKE / GLANCE)):
            if self.connection.pc.connectionState == "connecting":
                await asyncio.sleep(GLANCE)
        await self._disconnect()

    async def _disconnect(self) -> None:
        closing = asyncio.ensure_future(self.connection.disconnect())
        done, _ = await asyncio.wait({closing}, timeout=DISCONNECT_TIMEOUT)
        if not done:
            logger.debug(f"Peer {self.pc_id} did not close within {DISCONNECT_TIMEOUT:g} s")
            closing.cancel()
        elif closing.exception() is not None:
            logger.debug(f"Peer {self.pc_id}: closing failed: {type(closing.exception()).__name__}")


def _clock_rate(transceiver: Any) -> int:
    """Of a transceiver's RTP timestamps, in which aiortc gives the jitter."""
    return 48_000 if transceiver.kind == "audio" else 90_000


class PeerConnections:
    """Owns every peer connection.

    Args:
        ice: Where the servers come from.
        denied: Networks to which nothing is sent.
        esp32_host: Adapt answers for an ESP32 that reaches us at this address; None for other clients.
        connect_timeout: Seconds that a peer gets to connect.
        disconnect_timeout: Seconds of silence after which a peer is gone.
    """

    def __init__(
        self,
        ice: IceServers,
        *,
        denied: Sequence[Network],
        esp32_host: str | None,
        connect_timeout: float,
        disconnect_timeout: float,
    ) -> None:
        self._ice = ice
        self._denied = denied
        self._timeouts = {"connect_timeout": connect_timeout, "disconnect_timeout": disconnect_timeout}
        self._esp32_host = esp32_host
        self._peers: dict[str, PeerConnection] = {}

    async def open(self, offer: Offer, caller: Caller = UNKNOWN) -> PeerConnection:
        """A new connection that answers the offer; this machine's own clients may have loopback addresses.

        Raises:
            Malformed: aiortc cannot make an answer of it. Nothing is left behind.
        """
        connection = SmallWebRTCConnection(ice_servers=await self._ice.get())
        peer = PeerConnection(connection, Destinations(self._denied, loopback=caller.is_local), **self._timeouts)
        try:
            await peer.begin(offer)
        except asyncio.CancelledError:
            await peer.close()
            raise
        except Exception as error:
            await peer.close()
            raise Malformed(f"This SDP cannot be answered: {type(error).__name__}.", field="sdp") from None
        self._peers[peer.pc_id] = peer
        return peer

    async def renegotiate(self, offer: Offer) -> PeerConnection:
        """Answer an offer that names its connection.

        Raises:
            UnknownPeer: there is none of that name (any more).
            Malformed: aiortc cannot make an answer of it.
        """
        peer = self._find(offer.pc_id)
        try:
            await peer.renegotiate(offer)
        except Refusal:
            raise
        except Exception as error:
            raise Malformed(f"This SDP cannot be answered: {type(error).__name__}.", field="sdp") from None
        finally:
            self._rename(peer)
        return peer

    def knows(self, pc_id: str | None) -> bool:
        """Whether a connection has this name."""
        return pc_id in self._peers

    async def trickle(self, trickle: Trickle) -> None:
        """Add candidates that came after the offer.

        Raises:
            UnknownPeer: there is none of that name (any more).
            Malformed: a candidate does not fit the offer.
        """
        peer = self._find(trickle.pc_id)
        peer.candidates += len(trickle.candidates)
        if peer.candidates > MOST_CANDIDATES:
            raise Malformed(f"More than {MOST_CANDIDATES} of one peer.", field="candidates")
        try:
            await peer.trickle(trickle.candidates)
        except Exception as error:
            raise Malformed(f"Not a candidate of this offer: {type(error).__name__}.", field="candidates") from None

    async def close(self, peer: PeerConnection) -> None:
        """Close a connection and forget it."""
        for pc_id in [pc_id for pc_id, known in self._peers.items() if known is peer]:
            del self._peers[pc_id]
        await peer.close()

    def answer(self, peer: PeerConnection) -> dict[str, str]:
        """``{sdp, type, pc_id}``, for the client."""
        answer: dict[str, str] = peer.connection.get_answer()
        if self._esp32_host is None:
            return answer
        from pipecat.runner.utils import smallwebrtc_sdp_munging

        return {**answer, "sdp": smallwebrtc_sdp_munging(answer["sdp"], self._esp32_host)}

    def _rename(self, peer: PeerConnection) -> None:
        """A restart gives it another pc_id."""
        for pc_id in [pc_id for pc_id, known in self._peers.items() if known is peer]:
            del self._peers[pc_id]
            self._peers[peer.pc_id] = peer

    def _find(self, pc_id: str | None) -> PeerConnection:
        peer = self._peers.get(pc_id or "")
        if peer is None:
            raise UnknownPeer("No connection has this pc_id.", field="pc_id")
        return peer
