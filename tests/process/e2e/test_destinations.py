"""Offers that name other people's addresses: few packets go there, and none to those that are denied."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import dns.message
import pytest
from aioice import mdns
from aioice.stun import Class, Message, Method

from pipecat_base.bot.webrtc.destinations import MAX_MDNS_NAMES, MAX_UNANSWERED_ADDRESSES, MAX_UNANSWERED_PACKETS
from tests.support.graph_api import VARIABLES, Graph, call_id, connect, deliver
from tests.support.launchers import Launcher, until
from tests.support.offers import NO_ICE, SDP
from tests.support.udp_receiver import LOOPBACK, Receiver, candidate, offer_of

STRANGER = {"x-forwarded-for": "203.0.113.9"}
"""As a proxy on this machine says it."""
DENIED, PERMITTED = "127.0.0.2", "127.0.0.66"
DENY = "198.18.0.0/15, 127.0.0.0/28, fd00:9::/64"
OWN_ADDRESS = next(line.split()[4] for line in SDP.splitlines() if line.startswith("a=candidate") and "." in line)
GROUP = "239.255.77.7"
WAYS = ["offer", "trickle", "restart"]
CHECK, ANSWER = b"\x00\x01", b"\x01\x01"
"""How a STUN packet begins."""


def launch(bot: str = "obedient", **variables: Any) -> Launcher:
    return Launcher(bot, **{**NO_ICE, "DRAIN_NOTICE": "0", "WEBRTC_CONNECT_TIMEOUT": "4", **variables})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def call(launcher: Launcher, sdp: str, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, str]:
    """Offer it; the answer."""
    content = {"sdp": sdp, "type": "offer", "requestData": {"do": "hang"}, **fields}
    response = launcher.http.post("/api/offer", json=content, headers=headers)
    assert response.status_code == 200, response.text
    answer: dict[str, str] = response.json()
    return answer


def name(launcher: Launcher, way: str, candidates: list[str], headers: dict[str, str] | None = None) -> None:
    """Have a caller name these candidates; return when its connection has been given up."""
    if way == "offer":
        call(launcher, offer_of(candidates), headers)
    elif way == "restart":
        pc_id = call(launcher, SDP, headers)["pc_id"]
        call(launcher, offer_of(candidates), headers, pc_id=pc_id, restart_pc=True)
    else:
        pc_id = call(launcher, SDP.replace("a=end-of-candidates\r\n", ""), headers)["pc_id"]
        trickled = [{"candidate": text, "sdp_mid": "0", "sdp_mline_index": 0} for text in candidates]
        patch = launcher.http.patch("/api/offer", json={"pc_id": pc_id, "candidates": trickled}, headers=headers)
        assert patch.status_code == 200, patch.text
    launcher.wait_for_log("Peer did not connect")


@pytest.mark.parametrize("way", WAYS)
def test_of_many_addresses_few_get_packets(receiver: Receiver, way: str) -> None:
    with launch(WEBRTC_CONNECT_TIMEOUT="8") as launcher:
        name(launcher, way, [candidate(address, receiver.port) for address in LOOPBACK])
        assert 1 <= len(receiver.addresses) <= MAX_UNANSWERED_ADDRESSES
        assert len(receiver.addresses) <= receiver.packets <= MAX_UNANSWERED_PACKETS


def test_sections_that_are_not_bundled_share_what_a_peer_may_send(receiver: Receiver) -> None:
    lines = [line for line in SDP.split("\r\n") if not line.startswith(("a=candidate:", "a=group:"))]
    addresses = iter(LOOPBACK)
    sdp: list[str] = []
    for line in lines:
        if line == "a=end-of-candidates":
            sdp += [f"a={candidate(next(addresses), receiver.port)}" for _ in range(30)]
        sdp.append(line)
    with launch(WEBRTC_CONNECT_TIMEOUT="8") as launcher:
        call(launcher, "\r\n".join(sdp))
        launcher.wait_for_log("Peer did not connect")
        assert 1 <= len(receiver.addresses) <= MAX_UNANSWERED_ADDRESSES
        assert receiver.packets <= MAX_UNANSWERED_PACKETS


@pytest.mark.parametrize("way", WAYS)
def test_a_stranger_has_no_packets_sent_to_loopback_or_multicast_addresses(receiver: Receiver, way: str) -> None:
    membership = struct.pack("4s4s", socket.inet_aton(GROUP), socket.inet_aton(OWN_ADDRESS))
    receiver.socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    with launch() as launcher:
        named = [*LOOPBACK[:5], "127.0.0.1", GROUP, OWN_ADDRESS]
        name(launcher, way, [candidate(address, receiver.port) for address in named], STRANGER)
        assert receiver.addresses == {OWN_ADDRESS}


@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_sent_to_a_denied_network(receiver: Receiver, way: str) -> None:
    with launch(PIPECAT_ICE_DENY=DENY) as launcher:
        name(launcher, way, [candidate(address, receiver.port) for address in (DENIED, PERMITTED)])
        assert receiver.addresses == {PERMITTED}


def test_nothing_is_sent_to_a_broadcast_address(receiver: Receiver) -> None:
    with launch() as launcher:
        named = ["127.255.255.255", "255.255.255.255", PERMITTED]
        name(launcher, "offer", [candidate(address, receiver.port) for address in named])
        assert receiver.addresses == {PERMITTED}


def test_a_whatsapp_call_has_no_packets_sent_to_loopback_addresses(receiver: Receiver) -> None:
    candidates = [candidate(address, receiver.port) for address in (*LOOPBACK[:5], OWN_ADDRESS)]
    with Graph() as graph, launch("whatsapp", DO="hang", **VARIABLES, **graph.variables) as launcher:
        assert deliver(launcher, connect(call_id(), offer_of(candidates))).status_code == 200
        until(lambda: receiver.packets >= 3, "checks of the address that is good")
        assert receiver.addresses == {OWN_ADDRESS}


@contextmanager
def published(**names: str) -> Iterator[None]:
    """Names below .local, and the addresses that this machine's mDNS gives for them."""
    stop, is_there = threading.Event(), threading.Event()

    async def serve() -> None:
        protocol = await mdns.create_mdns_protocol()
        for host, address in names.items():
            await protocol.publish(f"{host}.local", address)
        is_there.set()
        await asyncio.to_thread(stop.wait)
        await protocol.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),), daemon=True)
    thread.start()
    assert is_there.wait(10)
    yield
    stop.set()
    thread.join(10)


@contextmanager
def asked() -> Iterator[set[str]]:
    """Names that mDNS is asked for on this machine, once the block has ended."""
    names: set[str] = set()
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("", mdns.MDNS_PORT))
        membership = struct.pack("4s4s", socket.inet_aton(mdns.MDNS_ADDRESS), bytes(4))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
        yield names
        for data in waiting(sock):
            names |= {str(question.name).rstrip(".") for question in dns.message.from_wire(data).question}


@pytest.mark.parametrize("way", WAYS)
def test_a_few_mdns_names_are_asked_for_and_no_more(way: str) -> None:
    names = [f"{way}-{number}-{uuid.uuid4().hex[:8]}.local" for number in range(30)]
    with launch(WEBRTC_CONNECT_TIMEOUT="12") as launcher, asked() as found:
        name(launcher, way, [candidate(host, 50000) for host in names])
    assert found & set(names) == set(names[:MAX_MDNS_NAMES])


@pytest.mark.parametrize("way", WAYS)
def test_mdns_names_are_resolved_and_denied_by_their_addresses(receiver: Receiver, way: str) -> None:
    with published(good=OWN_ADDRESS, bad=DENIED), launch(PIPECAT_ICE_DENY=DENY) as launcher:
        name(launcher, way, [candidate(host, receiver.port) for host in ("bad.local", "good.local")])
        assert receiver.addresses == {OWN_ADDRESS}


def check(answer: dict[str, str]) -> tuple[bytes, int]:
    """A check as the peer that made the offer sends it, and our port for it."""
    lines = answer["sdp"].splitlines()
    said = {key: value for key, _, value in (line.removeprefix("a=").partition(":") for line in lines)}
    theirs = next(line.removeprefix("a=ice-ufrag:") for line in SDP.splitlines() if line.startswith("a=ice-ufrag"))
    message = Message(Method.BINDING, Class.REQUEST)
    message.attributes["USERNAME"] = f"{said['ice-ufrag']}:{theirs}"
    message.attributes["PRIORITY"] = 1845501695
    message.attributes["ICE-CONTROLLING"] = 1
    message.add_message_integrity(said["ice-pwd"].encode())
    ports = (line.split()[5] for line in lines if line.startswith("a=candidate") and f" {OWN_ADDRESS} " in line)
    return bytes(message), int(next(ports))


def test_a_check_from_a_denied_network_is_not_answered() -> None:
    with ExitStack() as stack, launch(PIPECAT_ICE_DENY=DENY, WEBRTC_CONNECT_TIMEOUT="20") as launcher:
        data, port = check(call(launcher, offer_of([candidate("203.0.113.9", 50000)])))
        senders = {
            address: stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for address in (DENIED, PERMITTED)
        }
        for address, sender in senders.items():
            sender.settimeout(10)
            sender.bind((address, 0))
            sender.sendto(data, (OWN_ADDRESS, port))
        # The answer, and a check of ours.
        assert {senders[PERMITTED].recv(2048)[:2] for _ in range(2)} == {ANSWER, CHECK}
        senders[DENIED].settimeout(1)
        with pytest.raises(TimeoutError):
            senders[DENIED].recv(2048)


def test_checks_from_many_addresses_are_answered_at_a_few() -> None:
    with ExitStack() as stack, launch(WEBRTC_CONNECT_TIMEOUT="8") as launcher:
        data, port = check(call(launcher, offer_of([candidate("203.0.113.9", 50000)])))
        senders = [stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in LOOPBACK]
        for address, sender in zip(LOOPBACK, senders, strict=True):
            sender.bind((address, 0))
            sender.sendto(data, (OWN_ADDRESS, port))
        launcher.wait_for_log("Peer did not connect")
        received = [list(waiting(sender)) for sender in senders]
        answers = [sum(data[:2] == ANSWER for data in packets) for packets in received]
        assert (max(answers), sum(answers)) == (1, MAX_UNANSWERED_ADDRESSES)
        # Ours to whoever has sent one, and to whoever was named.
        assert sum(map(len, received)) <= MAX_UNANSWERED_ADDRESSES + 2 * MAX_UNANSWERED_PACKETS


def waiting(sock: socket.socket) -> Iterator[bytes]:
    """What has reached it."""
    sock.setblocking(False)
    try:
        while True:
            yield sock.recv(2048)
    except BlockingIOError:
        return
