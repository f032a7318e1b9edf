"""STUN and TURN servers: do they answer over the network that this machine is in?

With the launcher's own list of servers, and with aioice, which aiortc speaks to them with.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pipecat_base.cli.doctor.findings import Finding, not_checked, ok, problem, warning
from pipecat_base.cli.doctor.rounds import Check
from pipecat_base.config.settings import Settings

if TYPE_CHECKING:
    from pipecat_base.bot.webrtc.ice import IceServers

STUN_TIMEOUT = 3.0
"""Seconds for an answer."""
TURN_TIMEOUT = 4.0
"""Seconds for an allocation: two round trips, and the connection of TCP and TLS."""
RESEND = 0.5
"""Seconds between requests over UDP, any of which may be lost (RFC 8489, 6.2.1)."""
NO_UDP = "Allow UDP out of this network, or set PIPECAT_ICE_SERVERS to a TURN server that is reached over TCP or TLS."


def listed(settings: Settings) -> tuple[list[Finding], list[Check]]:
    """What is wrong with the list of servers, and a check for each server in it. May ask ICE_CONFIG_URL.

    Imports pipecat and aiortc.
    """
    from pipecat_base.bot.webrtc.ice import IceServers

    with _warnings() as said:
        servers = IceServers(settings.webrtc.ice_servers, settings.webrtc.ice_config_url)
        found = asyncio.run(_get(servers))
    findings = [_bot_error(text) for text in said]
    if not found and not said:
        findings.append(warning("ice servers", "none: only callers in the same network connect", "List some."))
    is_chosen = settings.webrtc.ice_servers is not None or (settings.webrtc.ice_config_url is not None and not said)
    return findings, [_check(server, is_chosen=is_chosen) for server in found]


def _bot_error(text: str) -> Finding:
    # A line that begins with the variable's name is of one that is of no use as a whole.
    tell = problem if text.startswith(("PIPECAT_ICE_SERVERS", "ICE_CONFIG_URL")) else warning
    return tell("ice servers", text.rstrip("."), "Correct PIPECAT_ICE_SERVERS or ICE_CONFIG_URL, whichever is set.")


async def _get(servers: IceServers) -> list[Any]:
    fetching = servers.prefetch()
    if fetching is not None:
        await asyncio.wait({fetching})
    return await servers.get()


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    """The log's, which is where the list's mistakes are told."""
    from pipecat_base.logs.logger import logger

    said: list[str] = []
    sink = logger.add(lambda message: said.append(message.record["message"]), level="WARNING", format="{message}")
    try:
        yield said
    finally:
        logger.remove(sink)


def _check(server: Any, *, is_chosen: bool) -> Check:
    from aiortc.rtcicetransport import parse_stun_turn_uri

    parsed = parse_stun_turn_uri(server.urls)
    if parsed["scheme"] == "stun":
        return Check("stun", partial(stun, server.urls, parsed["host"], parsed["port"], is_chosen=is_chosen))
    if parsed["scheme"] == "stuns":
        return Check("stun", lambda: [not_checked("stun", f"{server.urls}: aiortc speaks no STUN over TLS")])
    credentials = (server.username or None, server.credential or None)
    return Check("turn", partial(turn, server.urls, parsed, *credentials))


def stun(url: str, host: str, port: int, *, is_chosen: bool) -> Sequence[Finding]:
    """Ask a STUN server for our address.

    Args:
        is_chosen: Whether somebody has chosen this server: the default one is not needed by everybody.
    """
    tell = problem if is_chosen else warning
    try:
        family, address = _resolve(host, port)
    except OSError as error:
        return [tell("stun", f"{url}: {error.strerror or error}", "Check the name, and this machine's DNS.")]
    try:
        seen = _ask_stun(family, address)
    except TimeoutError:
        return [tell("stun", f"{url} does not answer over UDP within {STUN_TIMEOUT:g} s", NO_UDP)]
    except OSError as error:
        return [tell("stun", f"{url} does not answer over UDP: {error.strerror or error}", NO_UDP)]
    return [ok("stun", f"{url} answers over UDP; it sees this machine as {seen}")]


def _ask_stun(family: int, address: Any) -> str:
    """Our address, as a STUN server sees it (RFC 8489).

    Raises:
        OSError: it cannot be reached.
        TimeoutError: it does not answer.
    """
    from aioice import stun as protocol

    request = protocol.Message(protocol.Method.BINDING, protocol.Class.REQUEST)
    deadline = time.monotonic() + STUN_TIMEOUT
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect(address)
        while (now := time.monotonic()) < deadline:
            sock.send(bytes(request))
            for data in _received(sock, now + RESEND):
                with contextlib.suppress(ValueError):  # it is no answer of STUN's
                    answer = protocol.parse_message(data)
                    if answer.transaction_id == request.transaction_id:
                        seen: str = answer.attributes.get("XOR-MAPPED-ADDRESS", ("unknown",))[0]
                        return seen
    raise TimeoutError


def _received(sock: socket.socket, until: float) -> Iterator[bytes]:
    while (left := until - time.monotonic()) > 0:
        sock.settimeout(left)
        with contextlib.suppress(TimeoutError):
            yield sock.recv(2048)


def turn(url: str, parsed: dict[str, Any], username: str | None, credential: str | None) -> Sequence[Finding]:
    """Ask a TURN server for an address of its own, and give that back.

    Args:
        parsed: The URL's parts: ``scheme``, ``host``, ``port``, ``transport``.
    """
    from aioice.stun import TransactionError, TransactionFailed

    if not (username and credential):
        return [problem("turn", f"{url} has no username or no credential", "Set both.")]
    try:
        _, address = _resolve(parsed["host"], parsed["port"])
        relayed = asyncio.run(_allocate(address, parsed, username, credential))
    except TransactionFailed as error:
        code, words = error.response.attributes.get("ERROR-CODE", (0, "no reason"))
        return [problem("turn", f"{url} refuses an allocation: {code} {words}", "Check username and credential.")]
    except ssl.SSLError as error:
        why = getattr(error, "verify_message", "") or error.reason or "TLS failed"
        return [problem("turn", f"{url}: {why}", "Check its certificate and its name.")]
    except (TimeoutError, TransactionError):
        text = f"{url} does not answer within {TURN_TIMEOUT:g} s"
        return [problem("turn", text, "Check its address, and firewalls on the way; try ?transport=tcp.")]
    except OSError as error:
        return [problem("turn", f"{url}: {error.strerror or error}", "Check its address, and firewalls on the way.")]
    return [ok("turn", f"{url} takes the credentials and relays at {relayed}")]


async def _allocate(address: Any, parsed: dict[str, Any], username: str, credential: str) -> str:
    from aioice.turn import create_turn_endpoint

    is_over = asyncio.get_running_loop().create_future()

    class Peer(asyncio.DatagramProtocol):
        def connection_lost(self, error: Exception | None) -> None:
            if not is_over.done():
                is_over.set_result(None)

    is_tls = parsed["scheme"] == "turns"
    async with asyncio.timeout(TURN_TIMEOUT):
        transport, _ = await create_turn_endpoint(
            Peer,
            # A certificate has the name; otherwise nobody needs to look it up again.
            (parsed["host"], parsed["port"]) if is_tls else address[:2],
            username=username,
            password=credential,
            ssl=True if is_tls else None,
            transport=parsed["transport"],
        )
        relayed = transport.get_extra_info("sockname")[0]
        transport.close()
        await is_over
    return str(relayed)


def _resolve(host: str, port: int) -> tuple[int, Any]:
    """Family and address, IPv4 before IPv6, as aiortc has it.

    Raises:
        OSError: nobody knows the name.
    """
    bare = host.strip("[]")
    found = sorted(socket.getaddrinfo(bare, port, type=socket.SOCK_DGRAM), key=lambda each: each[0] != socket.AF_INET)
    return found[0][0], found[0][4]
