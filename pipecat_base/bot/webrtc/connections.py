"""Peer connections: answered, found by ``pc_id``, watched until the client disconnects, and always closed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from aiortc.rtcicetransport import RTCIceCandidate
from pipecat.transports.smallwebrtc.connection import IceServer, SmallWebRTCConnection

from pipecat_base.bot.webrtc.destinations import Destinations, Network
from pipecat_base.bot.webrtc.offers import Offer, Trickle
from pipecat_base.bot.webrtc.sdp import MAX_CANDIDATES, count_candidates
from pipecat_base.errors import Malformed, Refusal, UnknownPeer
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import UNKNOWN_CALLER, Caller

PEER_POLL_SECONDS = 0.25  # aiortc itself takes half a minute to notice that a client has vanished
CONNECTING_POLL_SECONDS = 0.02
CONNECTING_GRACE_SECONDS = 0.5  # for a connection that is to be closed while it is being made
BOT_END_GRACE_SECONDS = 1.0  # pipecat reports the disconnect to the bot, which may then end on its own
CLOSE_TIMEOUT_SECONDS = 1.0
STATS_INTERVAL_SECONDS = 10.0

Emit = Callable[[str, Mapping[str, Any]], None]  # an event's name and its fields


class PeerConnection:
    """A client's connection; its disconnect timeout is a time of silence."""

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
        self.candidates = 0  # of the last offer and since then
        self._connect_timeout = connect_timeout
        self._disconnect_timeout = disconnect_timeout
        self._renegotiating = asyncio.Lock()
        self._closed = False
        self._created_at = time.monotonic()

    @property
    def pc_id(self) -> str:
        """The id that the client knows; a restart changes it."""
        found = str(self.connection.pc_id)
        return found if "-" in found else f"{found}-{os.getpid()}"  # pipecat before 0.0.92 counts them in each process

    async def answer(self, offer: Offer) -> None:
        self.candidates = count_candidates(offer.sdp)
        await self.connection.initialize(sdp=self._destinations.accept_offer(offer.sdp), type="offer")
        self._destinations.guard(self.connection.pc)

    async def renegotiate(self, offer: Offer) -> None:
        """Answer another offer of the same client, or raise UnknownPeer if the connection is closed meanwhile."""
        async with self._renegotiating:
            self._check_open()
            self.candidates = count_candidates(offer.sdp)
            sdp = self._destinations.accept_offer(offer.sdp)
            try:
                await self.connection.renegotiate(sdp=sdp, type="offer", restart_pc=offer.restart)
            finally:
                self._destinations.guard(self.connection.pc)
            if self._closed:
                # A restart makes a new connection, which would otherwise outlive the bot.
                await self._disconnect()
            self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise UnknownPeer("This connection's call has ended.", field="pc_id")

    async def trickle(self, candidates: Sequence[RTCIceCandidate | None]) -> None:
        """Add candidates. Raises the first failure if none could be added."""
        failures: list[Exception] = []
        for candidate in candidates:
            if candidate is not None and not self._destinations.accepts(candidate):
                logger.debug("An ICE candidate was ignored")
                continue
            try:
                await self.connection.add_ice_candidate(candidate)
            except Exception as error:
                logger.debug(f"An ICE candidate was ignored: {type(error).__name__}")
                failures.append(error)
        if failures and len(failures) == len(candidates):
            raise failures[0]

    async def measure(self, emit: Emit) -> None:
        """Emit an event when the peer has connected, and statistics from then on."""
        # A restart makes another pc.
        while self.connection.pc.connectionState != "connected":  # noqa: ASYNC110
            await asyncio.sleep(CONNECTING_POLL_SECONDS)
        emit("webrtc_connected", {"connect_secs": time.monotonic() - self._created_at})
        while True:
            await asyncio.sleep(STATS_INTERVAL_SECONDS)
            await self.emit_stats(emit)

    async def emit_stats(self, emit: Emit) -> None:
        """Emit the statistics so far; a failure to get them does not end the call."""
        try:
            received, lost, jitter = await self._packet_stats()
        except Exception as error:
            logger.debug(f"Peer {self.pc_id}: no statistics: {type(error).__name__}")
            return
        if received:
            fields = {"packets_received": received, "packets_lost": lost, "jitter_secs": jitter, "peer": self.pc_id}
            emit("webrtc_stats", fields)

    async def _packet_stats(self) -> tuple[int, int, float]:
        """Packets received and lost, and the worst jitter in seconds."""
        received, lost, jitter = 0, 0, 0.0
        for transceiver in self.connection.pc.getTransceivers():
            for entry in (await transceiver.receiver.getStats()).values():
                if entry.type == "inbound-rtp":
                    received += entry.packetsReceived
                    lost += max(0, entry.packetsLost)
                    jitter = max(jitter, entry.jitter / _clock_rate(transceiver))
        return received, lost, jitter

    async def wait_until_disconnected(self) -> None:
        """Wait until the client has disconnected and the bot has had a moment to end because of it."""
        logger.info(await self._disconnect_reason())
        await asyncio.sleep(BOT_END_GRACE_SECONDS)

    async def _disconnect_reason(self) -> str:
        loop = asyncio.get_running_loop()
        watched: Any = None
        since, received, connected = 0.0, -1, False
        while True:
            now, pc = loop.time(), self.connection.pc
            if pc is not watched or self._renegotiating.locked():  # the first time, or the first after a restart
                watched, since, received, connected = pc, now, -1, False
            elif pc.connectionState in ("closed", "failed"):
                return f"Peer connection {pc.connectionState}"
            elif pc.connectionState == "connected":
                before, received = received, await self._received_bytes(pc, received)
                if not connected or received != before:
                    since, connected = now, True
                elif now - since > self._disconnect_timeout:
                    return f"Peer was silent for {self._disconnect_timeout:g} s"
            elif not connected and now - since > self._connect_timeout:
                return f"Peer did not connect within {self._connect_timeout:g} s"
            await asyncio.sleep(PEER_POLL_SECONDS)

    @staticmethod
    async def _received_bytes(pc: Any, before: int) -> int:
        """A number that changes while the client is connected: it sends media or reports all the time."""
        for transceiver in pc.getTransceivers()[:1]:
            stats = (await transceiver.receiver.getStats()).values()
            # Of everything that shares its transport: data and the reports of other media too.
            return sum(getattr(entry, "bytesReceived", 0) for entry in stats if entry.type == "transport")
        # No public counter has data channels: ICE's consent checks notice a disconnect, after half a minute.
        return before + 1

    async def close(self) -> None:
        self._closed = True
        # A client that is still connecting would not notice: it gets a moment to finish first.
        for _ in range(round(CONNECTING_GRACE_SECONDS / CONNECTING_POLL_SECONDS)):
            if self.connection.pc.connectionState == "connecting":
                await asyncio.sleep(CONNECTING_POLL_SECONDS)
        await self._disconnect()

    async def _disconnect(self) -> None:
        closing = asyncio.ensure_future(self.connection.disconnect())
        done, _ = await asyncio.wait({closing}, timeout=CLOSE_TIMEOUT_SECONDS)
        if not done:
            logger.debug(f"Peer {self.pc_id} did not close within {CLOSE_TIMEOUT_SECONDS:g} s")
            closing.cancel()
        elif closing.exception() is not None:
            logger.debug(f"Peer {self.pc_id}: closing failed: {type(closing.exception()).__name__}")


def _clock_rate(transceiver: Any) -> int:
    # aiortc gives the jitter in units of RTP timestamps.
    return 48_000 if transceiver.kind == "audio" else 90_000


class PeerConnections:
    def __init__(
        self,
        ice_servers: Callable[[], Awaitable[list[IceServer]]],
        *,
        denied: Sequence[Network],
        esp32_host: str | None,
        connect_timeout: float,
        disconnect_timeout: float,
    ) -> None:
        self._ice_servers = ice_servers
        self._denied = denied
        self._timeouts = {"connect_timeout": connect_timeout, "disconnect_timeout": disconnect_timeout}
        self._esp32_host = esp32_host
        self._peers: dict[str, PeerConnection] = {}

    async def open(self, offer: Offer, caller: Caller = UNKNOWN_CALLER) -> PeerConnection:
        """Answer an offer with a new connection; clients on this machine may have loopback addresses.

        Raises:
            Malformed: aiortc cannot answer it. Nothing is left behind.
            NoUdpPort: none that is permitted is free.
        """
        connection = SmallWebRTCConnection(ice_servers=await self._ice_servers())
        peer = PeerConnection(connection, Destinations(self._denied, loopback=caller.is_local), **self._timeouts)
        try:
            await peer.answer(offer)
        except (asyncio.CancelledError, Refusal):
            await peer.close()
            raise
        except Exception as error:
            await peer.close()
            raise Malformed(f"This SDP cannot be answered: {type(error).__name__}.", field="sdp") from None
        self._peers[peer.pc_id] = peer
        return peer

    async def renegotiate(self, offer: Offer) -> PeerConnection:
        """Answer an offer for the connection that its ``pc_id`` names.

        Raises:
            UnknownPeer: there is no such connection (any more).
            Malformed: aiortc cannot answer it.
        """
        peer = self._find(offer.pc_id)
        try:
            await peer.renegotiate(offer)
        except Refusal:
            raise
        except Exception as error:
            raise Malformed(f"This SDP cannot be answered: {type(error).__name__}.", field="sdp") from None
        finally:
            self._update_pc_id(peer)  # a restart changes it
        return peer

    def knows(self, pc_id: str | None) -> bool:
        return pc_id in self._peers

    async def trickle(self, trickle: Trickle) -> None:
        """Add candidates that arrived after the offer; raises as :meth:`renegotiate`."""
        peer = self._find(trickle.pc_id)
        peer.candidates += len(trickle.candidates)
        if peer.candidates > MAX_CANDIDATES:
            raise Malformed(f"More than {MAX_CANDIDATES} of one peer.", field="candidates")
        try:
            await peer.trickle(trickle.candidates)
        except Exception as error:
            raise Malformed(f"Not a candidate of this offer: {type(error).__name__}.", field="candidates") from None

    async def close(self, peer: PeerConnection) -> None:
        for pc_id in [pc_id for pc_id, known in self._peers.items() if known is peer]:
            del self._peers[pc_id]
        await peer.close()

    def answer(self, peer: PeerConnection) -> dict[str, str]:
        """``{sdp, type, pc_id}``, for the client."""
        answer: dict[str, str] = {**peer.connection.get_answer(), "pc_id": peer.pc_id}
        if self._esp32_host is None:
            return answer
        from pipecat.runner.utils import smallwebrtc_sdp_munging

        return {**answer, "sdp": smallwebrtc_sdp_munging(answer["sdp"], self._esp32_host)}

    def _update_pc_id(self, peer: PeerConnection) -> None:
        for pc_id in [pc_id for pc_id, known in self._peers.items() if known is peer]:
            del self._peers[pc_id]
            self._peers[peer.pc_id] = peer

    def _find(self, pc_id: str | None) -> PeerConnection:
        peer = self._peers.get(pc_id or "")
        if peer is None:
            raise UnknownPeer("No connection has this pc_id.", field="pc_id")
        return peer
