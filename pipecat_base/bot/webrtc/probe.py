"""Probes of STUN and TURN servers over this machine's network, with aioice, as in a call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from functools import partial
from typing import Any

from aioice import stun as protocol
from aioice.turn import create_turn_endpoint
from aiortc.rtcicetransport import parse_stun_turn_uri
from pipecat.transports.smallwebrtc.connection import IceServer

STUN_TIMEOUT_SECONDS = 3.0
STUN_RESEND_SECONDS = 0.5
"""As in RFC 8489, 6.2.1: each datagram may be lost."""
TURN_TIMEOUT_SECONDS = 4.0
RETRY_SECONDS = 2.0
"""For a quicker answer: a datagram was lost, or this machine was busy."""
TRANSPORTS = {"turn": ("udp", "tcp"), "turns": ("tcp",)}
"""Schemes and transports that aiortc knows."""
NO_UDP = "Allow UDP out of this network, or set PIPECAT_ICE_SERVERS to a TURN server that is reached over TCP or TLS."


class ProbeFailed(Exception):
    """Calls cannot use a server: why, and how to fix it. Neither text holds a credential."""

    def __init__(self, text: str, fix: str) -> None:
        super().__init__(f"{text}. {fix}")
        self.text = text
        self.fix = fix


def is_probed(server: IceServer) -> bool:
    """False for a server that aiortc never asks: it speaks neither STUN over TLS nor TURN over DTLS."""
    parsed = parse_stun_turn_uri(server.urls)
    return bool(parsed["scheme"] == "stun" or parsed.get("transport") in TRANSPORTS.get(parsed["scheme"], ()))


def probe(server: IceServer, timeout: float) -> str:
    """Ask a server, and describe its answer.

    Raises:
        ProbeFailed: it does not answer, refuses, or needs longer than calls wait for it.
    """
    parsed = parse_stun_turn_uri(server.urls)
    ask = partial(_stun if parsed["scheme"] == "stun" else _turn, server, parsed)
    end = time.monotonic() + RETRY_SECONDS
    while True:
        began = time.monotonic()
        answer = ask()
        seconds = time.monotonic() - began
        if seconds <= timeout:
            return answer
        if began + seconds > end:
            text = f"{server.urls} answers after {seconds:.1f} s, and calls wait for {timeout:g} s"
            raise ProbeFailed(text, "Raise PIPECAT_ICE_TIMEOUT, or use a nearer server.")


def _stun(server: IceServer, parsed: dict[str, Any]) -> str:
    url = server.urls
    try:
        family, address = _resolve(parsed["host"], parsed["port"])
    except OSError as error:
        raise ProbeFailed(f"{url}: {error.strerror or error}", "Check the name, and this machine's DNS.") from None
    try:
        seen = _public_address(family, address)
    except TimeoutError:
        raise ProbeFailed(f"{url} does not answer over UDP within {STUN_TIMEOUT_SECONDS:g} s", NO_UDP) from None
    except OSError as error:
        raise ProbeFailed(f"{url} does not answer over UDP: {error.strerror or error}", NO_UDP) from None
    return f"{url} answers over UDP; it sees this machine as {seen}"


def _public_address(family: int, address: Any) -> str:
    # A connected socket, unlike aioice's own, reports a refused port.
    request = protocol.Message(protocol.Method.BINDING, protocol.Class.REQUEST)
    deadline = time.monotonic() + STUN_TIMEOUT_SECONDS
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(STUN_RESEND_SECONDS)
        sock.connect(address)
        while time.monotonic() < deadline:
            sock.send(bytes(request))
            with contextlib.suppress(TimeoutError):
                while data := sock.recv(2048):
                    with contextlib.suppress(ValueError):  # not a STUN message
                        response = protocol.parse_message(data)
                        if response.transaction_id == request.transaction_id:
                            return str(response.attributes.get("XOR-MAPPED-ADDRESS", ("unknown",))[0])
    raise TimeoutError


def _turn(server: IceServer, parsed: dict[str, Any]) -> str:
    """Allocate an address, and release it."""
    url = server.urls
    if not (server.username and server.credential):
        raise ProbeFailed(f"{url} has no username or no credential", "Set both.")
    try:
        _, address = _resolve(parsed["host"], parsed["port"])
        relayed = asyncio.run(_allocate(address, parsed, server.username, server.credential))
    except protocol.TransactionFailed as error:
        code, reason = error.response.attributes.get("ERROR-CODE", (0, "no reason"))
        text = f"{url} refuses an allocation: {code} {reason}"
        raise ProbeFailed(text, "Check username and credential.") from None
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        raise ProbeFailed(f"{url}: {reason}", "Check its certificate and its name.") from None
    except (TimeoutError, protocol.TransactionError):
        text = f"{url} does not answer within {TURN_TIMEOUT_SECONDS:g} s"
        fix = "Check its address, and firewalls on the way; try ?transport=tcp."
        raise ProbeFailed(text, fix) from None
    except OSError as error:
        fix = "Check its address, and firewalls on the way."
        raise ProbeFailed(f"{url}: {error.strerror or error}", fix) from None
    return f"{url} takes the credentials and relays at {relayed}"


async def _allocate(address: Any, parsed: dict[str, Any], username: str, credential: str) -> str:
    released = asyncio.Event()

    class Client(asyncio.DatagramProtocol):
        def connection_lost(self, error: Exception | None) -> None:
            released.set()

    is_tls = parsed["scheme"] == "turns"
    async with asyncio.timeout(TURN_TIMEOUT_SECONDS):
        transport, _ = await create_turn_endpoint(
            Client,
            (parsed["host"], parsed["port"]) if is_tls else address[:2],  # a certificate is for the name
            username=username,
            password=credential,
            ssl=True if is_tls else None,
            transport=parsed["transport"],
        )
        relayed = transport.get_extra_info("sockname")[0]
        transport.close()
        await released.wait()
    return str(relayed)


def _resolve(host: str, port: int) -> tuple[int, Any]:
    """Family and address, IPv4 before IPv6, as in aiortc."""
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_DGRAM)
    family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    return family, address
