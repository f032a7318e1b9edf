"""Addresses to which a peer connection may send packets.

An offer names addresses, and ICE sends checks to them before anyone there has agreed to it. :class:`Destinations` drops
candidates that no browser has, and bounds the packets to addresses that have not answered.
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

from pipecat_base.bot.webrtc.offers import CANDIDATE
from pipecat_base.logs.logger import logger

MOST_ADDRESSES = 32
"""Addresses of one peer that have not answered: as many that it names, and as many that send checks.

Chromium, with two addresses and four sections, names 8; TURN and more network cards make some 20.
"""
MOST_PACKETS = 150
"""Packets to all of them together. aioice sends six to each within the 30 s that a peer gets to connect."""
MOST_NAMES = 8
"""mDNS names of one offer: each is a query to all of the network. A browser has one for each of its addresses."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = tuple[str, int]

THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
"""Source addresses only (RFC 1122, 3.2.1.3). IPv6's unspecified address is reserved."""


class Destinations:
    """Decides for one peer.

    Args:
        denied: Networks to which nothing is sent.
        loopback: Permit this machine's loopback addresses.
    """

    def __init__(self, denied: Sequence[Network], *, loopback: bool) -> None:
        self._denied = denied
        self._loopback = loopback
        self._names: set[str] = set()
        self._answered: set[Address] = set()
        self._named, self._heard = PacketLimit(), PacketLimit()

    def permits(self, host: str, port: int) -> bool:
        """Whether packets may be sent there."""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        is_permitted = 0 < port < 65536 and self._permits(address, loopback=self._loopback)
        return is_permitted and all(self._permits(end, loopback=False) for end in _embedded(address))

    def takes(self, candidate: RTCIceCandidate) -> bool:
        """Whether a peer's candidate is used."""
        if candidate.protocol.lower() != "udp":  # aioice has no other
            return False
        if not is_mdns_hostname(candidate.ip):
            return self.permits(candidate.ip, candidate.port)
        if len(self._names) < MOST_NAMES:
            self._names.add(candidate.ip)
        return candidate.ip in self._names

    def begin(self, sdp: str) -> str:
        """A peer's next offer, without the candidates that are not used."""
        self._names.clear()
        if self._answered:  # by someone who is there: new networks need new checks
            self._named, self._heard = PacketLimit(), PacketLimit()
        lines = sdp.splitlines()
        kept = [line for line in lines if not line.startswith(CANDIDATE) or self._takes_line(line)]
        if len(kept) < len(lines):
            logger.debug(f"Candidates of the offer that are not used: {len(lines) - len(kept)}")
        return "\r\n".join([*kept, ""])

    def guard(self, pc: Any) -> None:
        """Have all that a connection sends for ICE decided here: mDNS names and peers' own checks bring addresses, too.

        To be called before the event loop is given back to the connection that was offered.
        """
        parts = [transceiver.receiver for transceiver in pc.getTransceivers()] + ([pc.sctp] if pc.sctp else [])
        for part in parts:
            # aiortc has no public way to what sends.
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

    def _takes_line(self, line: str) -> bool:
        try:
            return self.takes(candidate_from_sdp(line.removeprefix(CANDIDATE)))
        except (AssertionError, IndexError, ValueError):  # above all sections, where aiortc does not read it
            return False

    def _send(self, send: Callable[[Message, Address], None], message: Message, address: Address) -> None:
        if self._may_send(message, address):
            send(message, address)

    def _may_send(self, message: Message, address: Address) -> bool:
        if not self.permits(*address):
            return False
        if address in self._answered or message.message_class is Class.ERROR:
            return True
        if message.message_class is Class.RESPONSE:  # to a check that had our password
            return self._heard.admits(address)
        return (self._heard if address in self._heard else self._named).spends(address)

    async def _request(
        self, request: Callable[..., Awaitable[Any]], message: Message, address: Address, *rest: Any, **options: Any
    ) -> Any:
        answer = await request(message, address, *rest, **options)
        self._answered.add(address)
        self._named.forget(address)
        self._heard.forget(address)
        return answer


class PacketLimit:
    """Counts packets to addresses that have not answered."""

    def __init__(self) -> None:
        self._sent: Counter[Address] = Counter()

    def __contains__(self, address: Address) -> bool:
        return address in self._sent

    def admits(self, address: Address) -> bool:
        """Whether it is one of the addresses, if need be from now on."""
        if address not in self._sent and len(self._sent) < MOST_ADDRESSES:
            self._sent[address] = 0
        return address in self._sent

    def spends(self, address: Address) -> bool:
        """Whether one more packet may be sent there; then it counts."""
        if not self.admits(address) or self._sent.total() >= MOST_PACKETS:
            return False
        self._sent[address] += 1
        return True

    def forget(self, address: Address) -> None:
        """It has answered."""
        self._sent.pop(address, None)


def _embedded(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[ipaddress.IPv4Address]:
    """IPv4 addresses inside of an IPv6 one, which packets to it may reach in the end."""
    if isinstance(address, ipaddress.IPv4Address):
        return []
    # From Python 3.13 on, a mapped address is not reserved.
    ends = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    return [end for end in ends if end is not None]
