"""Checks of STUN and TURN servers over this machine's network, with aioice, as in a call."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from aioice import stun as protocol
from aioice.turn import create_turn_endpoint
from aiortc.rtcicetransport import parse_stun_turn_uri

from pipecat_base.bot.webrtc.ice import IceServers
from pipecat_base.cli.doctor.checks import Check, Finding, not_checked, ok, problem, warning
from pipecat_base.config.settings import Settings
from pipecat_base.logs.logger import logger

STUN_TIMEOUT_SECONDS = 3.0
STUN_RESEND_SECONDS = 0.5
"""As in RFC 8489, 6.2.1: each datagram may be lost."""
TURN_TIMEOUT_SECONDS = 4.0
NO_UDP = "Allow UDP out of this network, or set PIPECAT_ICE_SERVERS to a TURN server that is reached over TCP or TLS."


def list_servers(settings: Settings) -> tuple[list[Finding], list[Check]]:
    """Problems of the list of servers, and a check for each server in it. May fetch ICE_CONFIG_URL."""
    warnings: list[str] = []
    sink = logger.add(lambda line: warnings.append(line.record["message"]), level="WARNING", format="{message}")
    try:
        servers = IceServers(settings.webrtc.ice_servers, settings.webrtc.ice_config_url)
        found = asyncio.run(_fetch(servers))
    finally:
        logger.remove(sink)
    findings = [_list_problem(text) for text in warnings]
    if not found and not warnings:
        findings.append(warning("ice servers", "none: only callers in the same network connect", "List some."))
    is_chosen = settings.webrtc.ice_servers is not None or (settings.webrtc.ice_config_url is not None and not warnings)
    return findings, [_check(server, is_chosen=is_chosen) for server in found]


def _list_problem(text: str) -> Finding:
    # A warning that begins with the variable's name is about the whole list, others are about an entry.
    finding = problem if text.startswith(("PIPECAT_ICE_SERVERS", "ICE_CONFIG_URL")) else warning
    return finding("ice servers", text.rstrip("."), "Correct PIPECAT_ICE_SERVERS or ICE_CONFIG_URL, whichever is set.")


async def _fetch(servers: IceServers) -> list[Any]:
    if (fetching := servers.prefetch()) is not None:
        await asyncio.wait({fetching})
    return await servers.get()


def _check(server: Any, *, is_chosen: bool) -> Check:
    parsed = parse_stun_turn_uri(server.urls)
    if parsed["scheme"] == "stun":
        return "stun", partial(stun, server.urls, parsed["host"], parsed["port"], is_chosen=is_chosen)
    if parsed["scheme"] == "stuns":
        return "stun", lambda: [not_checked("stun", f"{server.urls}: aiortc speaks no STUN over TLS")]
    return "turn", partial(turn, server.urls, parsed, server.username or None, server.credential or None)


def stun(url: str, host: str, port: int, *, is_chosen: bool) -> Sequence[Finding]:
    """Request this machine's address from a STUN server; only a server from the settings must answer."""
    failure = partial(problem if is_chosen else warning, "stun")
    try:
        family, address = _resolve(host, port)
    except OSError as error:
        return [failure(f"{url}: {error.strerror or error}", "Check the name, and this machine's DNS.")]
    try:
        seen = _public_address(family, address)
    except TimeoutError:
        return [failure(f"{url} does not answer over UDP within {STUN_TIMEOUT_SECONDS:g} s", NO_UDP)]
    except OSError as error:
        return [failure(f"{url} does not answer over UDP: {error.strerror or error}", NO_UDP)]
    return [ok("stun", f"{url} answers over UDP; it sees this machine as {seen}")]


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


def turn(url: str, parsed: dict[str, Any], username: str | None, credential: str | None) -> Sequence[Finding]:
    """Allocate an address on a TURN server, and release it.

    Args:
        parsed: The URL's ``scheme``, ``host``, ``port`` and ``transport``.
    """
    if not (username and credential):
        return [problem("turn", f"{url} has no username or no credential", "Set both.")]
    try:
        _, address = _resolve(parsed["host"], parsed["port"])
        relayed = asyncio.run(_allocate(address, parsed, username, credential))
    except protocol.TransactionFailed as error:
        code, reason = error.response.attributes.get("ERROR-CODE", (0, "no reason"))
        return [problem("turn", f"{url} refuses an allocation: {code} {reason}", "Check username and credential.")]
    except ssl.SSLError as error:
        reason = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        return [problem("turn", f"{url}: {reason}", "Check its certificate and its name.")]
    except (TimeoutError, protocol.TransactionError):
        text = f"{url} does not answer within {TURN_TIMEOUT_SECONDS:g} s"
        return [problem("turn", text, "Check its address, and firewalls on the way; try ?transport=tcp.")]
    except OSError as error:
        return [problem("turn", f"{url}: {error.strerror or error}", "Check its address, and firewalls on the way.")]
    return [ok("turn", f"{url} takes the credentials and relays at {relayed}")]


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
