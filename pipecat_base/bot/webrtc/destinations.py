"""Addresses to which a peer connection may send packets.

An offer names addresses, and ICE sends checks to them before anyone there has agreed to it. :class:`Destinations`
ignores candidates that no browser has, and bounds the packets to addresses that have not answered.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from aioice.mdns import is_mdns_hostname
from aioice.stun import Class, Message
from aiortc.rtcicetransport import RTCIceCandidate
from aiortc.sdp import candidate_from_sdp

from pipecat_base.bot.webrtc.sdp import CANDIDATE_LINE
from pipecat_base.logs.logger import logger

# For addresses of a peer's candidates, and again for addresses that send checks, while they have not answered.
# Chromium, with two addresses and four sections, names 8; TURN and more network cards make some 20. aioice sends six
# packets to each within the 30 s that a peer gets to connect.
MAX_UNANSWERED_ADDRESSES = 32
MAX_UNANSWERED_PACKETS = 150
MAX_MDNS_NAMES = 8  # of an offer: each is a query to the whole network; a browser has one for each of its addresses

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Endpoint = tuple[str, int]

THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")  # source addresses only (RFC 1122, 3.2.1.3)


class Destinations:
    """Decides where a peer connection may send packets; with ``loopback`` also to this machine."""

    def __init__(self, denied: Sequence[Network], *, loopback: bool) -> None:
        self._denied = denied
        self._loopback = loopback
        self._names: set[str] = set()
        self._answered: set[Endpoint] = set()
        self._from_candidates, self._from_checks = PacketLimit(), PacketLimit()

    def permits(self, host: str, port: int) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        is_permitted = 0 < port < 65536 and self._permits(address, loopback=self._loopback)
        return is_permitted and all(self._permits(end, loopback=False) for end in _embedded(address))

    def accepts(self, candidate: RTCIceCandidate) -> bool:
        if candidate.protocol.lower() != "udp":  # aioice has no other
            return False
        if not is_mdns_hostname(candidate.ip):
            return self.permits(candidate.ip, candidate.port)
        if len(self._names) < MAX_MDNS_NAMES:
            self._names.add(candidate.ip)
        return candidate.ip in self._names

    def accept_offer(self, sdp: str) -> str:
        """A peer's next offer, without the candidates that are ignored."""
        self._names.clear()
        if self._answered:  # a real peer: its new networks need new checks
            self._from_candidates, self._from_checks = PacketLimit(), PacketLimit()
        lines = sdp.splitlines()
        kept = [line for line in lines if not line.startswith(CANDIDATE_LINE) or self._accepts_line(line)]
        if len(kept) < len(lines):
            logger.debug(f"ICE candidates of the offer that were ignored: {len(lines) - len(kept)}")
        return "\r\n".join([*kept, ""])

    def guard(self, pc: Any) -> None:
        """Check every ICE packet that a connection sends: mDNS names and peers' own checks bring addresses, too.

        To be called before the event loop runs the connection's tasks.
        """
        parts = [transceiver.receiver for transceiver in pc.getTransceivers()] + ([pc.sctp] if pc.sctp else [])
        for part in parts:
            # aiortc has no public way to the sending protocol.
            for protocol in part.transport.transport._connection._protocols:
                if "send_stun" not in vars(protocol):
                    protocol.send_stun = partial(self._send, protocol.send_stun)
                    protocol.request = partial(self._request, protocol.request)

    def _permits(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, *, loopback: bool) -> bool:
        if any(address in network for network in self._denied):
            return False
        if address.is_loopback:
            return loopback
        is_special = address.is_multicast or address.is_link_local or address.is_reserved
        return not is_special and address not in THIS_NETWORK

    def _accepts_line(self, line: str) -> bool:
        try:
            return self.accepts(candidate_from_sdp(line.removeprefix(CANDIDATE_LINE)))
        except (AssertionError, IndexError, ValueError):  # above all sections, where aiortc does not read it
            return False

    def _send(self, send: Callable[[Message, Endpoint], None], message: Message, address: Endpoint) -> None:
        if self._may_send(message, address):
            send(message, address)

    def _may_send(self, message: Message, address: Endpoint) -> bool:
        if not self.permits(*address):
            return False
        if address in self._answered or message.message_class is Class.ERROR:
            return True
        if message.message_class is Class.RESPONSE:  # to a check with our password
            return self._from_checks.admit(address)
        limit = self._from_checks if address in self._from_checks else self._from_candidates
        return limit.spend(address)

    async def _request(
        self, request: Callable[..., Awaitable[Any]], message: Message, address: Endpoint, *rest: Any, **options: Any
    ) -> Any:
        response = await request(message, address, *rest, **options)
        self._answered.add(address)
        self._from_candidates.forget(address)
        self._from_checks.forget(address)
        return response


class PacketLimit:
    """Bounds addresses that have not answered, and the packets to them."""

    def __init__(self) -> None:
        self._sent: Counter[Endpoint] = Counter()

    def __contains__(self, address: Endpoint) -> bool:
        return address in self._sent

    def admit(self, address: Endpoint) -> bool:
        """Add an address if there is room; False if there is none."""
        if address not in self._sent and len(self._sent) < MAX_UNANSWERED_ADDRESSES:
            self._sent[address] = 0
        return address in self._sent

    def spend(self, address: Endpoint) -> bool:
        """Count one more packet to an address; False if none may be sent."""
        if not self.admit(address) or self._sent.total() >= MAX_UNANSWERED_PACKETS:
            return False
        self._sent[address] += 1
        return True

    def forget(self, address: Endpoint) -> None:
        self._sent.pop(address, None)


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses in an IPv6 address: packets to it may reach them in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    # From Python 3.13 on, a mapped address is not reserved.
    ends = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [end for end in ends if end is not None]
