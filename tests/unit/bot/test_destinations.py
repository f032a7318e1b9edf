"""Which candidates are used."""

from __future__ import annotations

import asyncio
import ipaddress
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aioice.stun import Class, Message, Method
from aiortc.sdp import candidate_from_sdp

from pipecat_base.bot.webrtc.destinations import (
    MAX_MDNS_NAMES,
    MAX_UNANSWERED_ADDRESSES,
    MAX_UNANSWERED_PACKETS,
    Destinations,
)
from pipecat_base.sessions.transports import Caller
from tests.support.udp_receiver import candidate

NO_ADDRESS_OF_A_BROWSER = [
    "0.0.0.0",
    "0.1.2.3",
    "169.254.1.2",
    "169.254.169.254",
    "224.0.0.251",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::fb",
    "ff0e::1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
    "::ffff:224.0.0.1",
    "::ffff:255.255.255.255",
    "::ffff:127.0.0.1",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::1",
    "2002:e000:1::1",
    "2002:ffff:ffff::1",
    "2002::1",
    "2001:0:a9fe:a9fe::1",
    "4000::1",
]
NO_ADDRESS = [
    "localhost",
    "metadata.google.internal",
    "a.b.local",
    "127.1",
    "2130706433",
    "0x7f000001",
    "",
    "1.2.3.4.5",
]


def takes(destinations: Destinations, host: str, port: int = 50000, protocol: str = "udp") -> bool:
    text = candidate("HOST", port, protocol=protocol).removeprefix("candidate:")
    parsed = candidate_from_sdp(text)
    parsed.ip = host
    return destinations.accepts(parsed)


def of_a_caller(*denied: str, loopback: bool = False) -> Destinations:
    return Destinations([ipaddress.ip_network(network) for network in denied], loopback=loopback)


@pytest.mark.parametrize("host", [*NO_ADDRESS_OF_A_BROWSER, *NO_ADDRESS])
@pytest.mark.parametrize("loopback", [False, True])
def test_a_candidate_that_no_browser_has_is_not_used(host: str, loopback: bool) -> None:
    assert not takes(of_a_caller(loopback=loopback), host)


@pytest.mark.parametrize("host", ["203.0.113.7", "10.0.0.7", "192.168.1.7", "100.64.0.7", "2a00:1450::7", "fd00::7"])
def test_a_candidate_of_the_internet_or_of_a_private_network_is_used(host: str) -> None:
    assert takes(of_a_caller(), host)
    assert takes(of_a_caller(), host, protocol="UDP")


@pytest.mark.parametrize(("port", "protocol"), [(0, "udp"), (-1, "udp"), (65536, "udp"), (9, "tcp"), (50000, "ssltcp")])
def test_a_candidate_without_a_udp_port_is_not_used(port: int, protocol: str) -> None:
    assert not takes(of_a_caller(), "203.0.113.7", port, protocol)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_candidates_are_used_for_callers_of_this_machine_alone(host: str) -> None:
    assert takes(of_a_caller(loopback=True), host)
    assert not takes(of_a_caller(), host)


@pytest.mark.parametrize(
    ("peer", "is_local"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("203.0.113.7", False),
        ("203.0.113.7 through 127.0.0.1", False),
        ("127.0.0.1 through 10.0.0.1", False),
        (None, False),
    ],
)
def test_a_caller_behind_a_proxy_of_this_machine_is_not_of_this_machine(peer: str | None, is_local: bool) -> None:
    assert Caller(peer).is_local is is_local


@pytest.mark.parametrize(
    ("network", "host"),
    [
        ("10.0.0.0/8", "10.1.2.3"),
        ("fd00::/8", "fd00::7"),
        ("10.0.0.0/8", "2002:0a01:0203::1"),
        ("203.0.113.7", "203.0.113.7"),
    ],
)
def test_a_candidate_in_a_denied_network_is_not_used(network: str, host: str) -> None:
    assert takes(of_a_caller(), host)
    assert not takes(of_a_caller("192.0.2.0/24", network), host)
    assert takes(of_a_caller(network), "198.51.100.7")


@pytest.mark.parametrize("host", ["::ffff:10.1.2.3", "::ffff:a01:203"])
def test_an_ipv4_address_in_an_ipv6_one_does_not_escape_a_denied_network(host: str) -> None:
    assert not takes(of_a_caller("10.0.0.0/8"), host)


def test_a_few_mdns_names_are_asked_for_and_no_more() -> None:
    destinations = of_a_caller()
    taken = [name for name in (f"{number}.local" for number in range(30)) if takes(destinations, name)]
    assert len(taken) == MAX_MDNS_NAMES
    assert all(takes(destinations, name) for name in taken), "a name may come once for each section"
    destinations.accept_offer("")
    assert takes(destinations, "30.local")


def test_an_offer_keeps_all_but_the_candidates_that_are_not_used() -> None:
    good, name = f"a={candidate('203.0.113.7', 5)}", f"a={candidate('abc.local', 5)}"
    lines = [
        "v=0",
        good,
        f"a={candidate('224.0.0.1', 5)}",
        "a=candidate:1 x udp 1 h 5 typ host",
        "a=candidate:1 1",
        name,
        "a=mid:0",
    ]
    assert of_a_caller().accept_offer("\n".join(lines)).split("\r\n") == ["v=0", good, name, "a=mid:0", ""]


HERE = ("203.0.113.7", 50000)
ELSEWHERE = [(f"198.51.100.{number}", 50000) for number in range(1, 100)]


class Protocol:
    """aioice's, as far as it sends: to whom it did."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, int]] = []

    def send_stun(self, message: Message, address: tuple[str, int]) -> None:
        self.sent.append(address)

    async def request(self, message: Message, address: tuple[str, int], **options: Any) -> str:
        return f"answered with {sorted(options)}"


def guarded(destinations: Destinations) -> Protocol:
    protocol = Protocol()
    connection = SimpleNamespace(_protocols=[protocol])
    part = SimpleNamespace(transport=SimpleNamespace(transport=SimpleNamespace(_connection=connection)))
    pc = SimpleNamespace(getTransceivers=lambda: [SimpleNamespace(receiver=part)], sctp=part)
    for _ in range(2):  # an offer that renegotiates guards again
        destinations.guard(pc)
    return protocol


def sent_to(protocol: Protocol, kind: Class, addresses: list[tuple[str, int]], times: int = 1) -> int:
    """How many of so many packets to each of them were sent."""
    before = len(protocol.sent)
    for address in addresses * times:
        protocol.send_stun(Message(Method.BINDING, kind), address)
    return len(protocol.sent) - before


def answer(protocol: Protocol, address: tuple[str, int]) -> None:
    reply = asyncio.run(protocol.request(Message(Method.BINDING, Class.REQUEST), address, retransmissions=0))
    assert cast(Any, reply) == "answered with ['retransmissions']"


def test_packets_to_an_address_that_has_answered_are_not_counted() -> None:
    destinations = of_a_caller()
    protocol = guarded(destinations)
    assert sent_to(protocol, Class.REQUEST, [HERE], MAX_UNANSWERED_PACKETS + 50) == MAX_UNANSWERED_PACKETS
    answer(protocol, HERE)
    assert sent_to(protocol, Class.REQUEST, [HERE], 1000) == 1000
    assert sent_to(protocol, Class.REQUEST, ELSEWHERE, 2) == 2 * MAX_UNANSWERED_ADDRESSES


def test_checks_are_answered_though_nothing_is_left_for_addresses_that_were_named() -> None:
    protocol = guarded(of_a_caller())
    assert sent_to(protocol, Class.REQUEST, ELSEWHERE, 50) == MAX_UNANSWERED_PACKETS
    assert sent_to(protocol, Class.REQUEST, [HERE]) == 0
    assert sent_to(protocol, Class.RESPONSE, [HERE]) == 1
    assert sent_to(protocol, Class.REQUEST, [HERE], 10) == 10
    assert sent_to(protocol, Class.RESPONSE, ELSEWHERE) == MAX_UNANSWERED_ADDRESSES - 1


def test_packets_to_an_address_that_sent_a_check_and_has_answered_are_not_counted() -> None:
    protocol = guarded(of_a_caller())
    for address in (HERE, ELSEWHERE[0]):
        assert sent_to(protocol, Class.RESPONSE, [address]) == 1
        assert sent_to(protocol, Class.REQUEST, [address], MAX_UNANSWERED_PACKETS + 50) == MAX_UNANSWERED_PACKETS
        answer(protocol, address)


def test_another_offer_of_a_peer_has_more_packets_only_if_someone_has_answered() -> None:
    destinations = of_a_caller()
    protocol = guarded(destinations)
    assert sent_to(protocol, Class.REQUEST, ELSEWHERE, 50) == MAX_UNANSWERED_PACKETS
    destinations.accept_offer("")
    assert sent_to(protocol, Class.REQUEST, ELSEWHERE, 50) == 0
    answer(protocol, HERE)
    destinations.accept_offer("")
    assert sent_to(protocol, Class.REQUEST, ELSEWHERE, 50) == MAX_UNANSWERED_PACKETS


@pytest.mark.parametrize("kind", [Class.REQUEST, Class.RESPONSE, Class.ERROR])
def test_no_packet_of_any_kind_is_sent_to_a_denied_network(kind: Class) -> None:
    protocol = guarded(of_a_caller("198.51.100.0/24"))
    answer(protocol, ELSEWHERE[0])
    assert sent_to(protocol, kind, [*ELSEWHERE, ("169.254.169.254", 80), HERE]) == 1
    assert protocol.sent == [HERE]
