"""Gathering of this machine's own ICE candidates, in a bounded time and on permitted ports."""

from __future__ import annotations

import asyncio
import errno
import random
import socket
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from aioice import stun, turn
from aioice.candidate import Candidate, candidate_foundation, candidate_priority
from aioice.ice import Connection, StunProtocol
from aiortc import rtcicetransport

from pipecat_base.errors import NoUdpPort
from pipecat_base.logs.logger import logger

OTHER_INTERFACES_SECONDS = 0.05
"""At least this long after the first interface has its public address, the others may still learn theirs."""


def limit_gathering(seconds: float, ports: tuple[int, int] | None) -> None:
    """Bound the gathering of all of aiortc's connections; it has no parameter for this."""
    rtcicetransport.Connection = partial(BoundedConnection, seconds=seconds, ports=ports)


class BoundedConnection(Connection):
    """Gathers for ``seconds`` at most, where aioice takes five; a name is resolved once for all interfaces."""

    def __init__(self, *args: Any, seconds: float, ports: tuple[int, int] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seconds = seconds
        self._ports = ports

    async def get_component_candidates(
        self, component: int, addresses: list[str], timeout: float = 0
    ) -> list[Candidate]:
        hosts = [protocol for address in addresses if (protocol := await self._bind(component, address))]
        self._protocols += hosts
        relayed = super().get_component_candidates(component, [], timeout=self._seconds)  # type: ignore[arg-type]
        reflexive, others = await asyncio.gather(self._reflexive(hosts), relayed)
        if self.turn_server is not None and not others:
            logger.warning(
                f"TURN server {self.turn_server[0]} gave no relay within {self._seconds:g} s; this call has none"
                " (PIPECAT_ICE_TIMEOUT)"
            )
        if addresses and self._ports is not None and not (hosts or others):
            raise NoUdpPort("No port of PIPECAT_UDP_PORTS ({}-{}) is free.".format(*self._ports))
        return [*(protocol.local_candidate for protocol in hosts), *reflexive, *others]

    async def _bind(self, component: int, address: str) -> StunProtocol | None:
        loop = asyncio.get_running_loop()
        for number in _rotated(self._ports):
            try:
                transport, protocol = await loop.create_datagram_endpoint(
                    lambda: StunProtocol(self), local_addr=(address, number)
                )
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:  # the address has gone, or is not ready
                    return None
        else:
            return None
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, turn.UDP_SOCKET_BUFFER_SIZE)
        host, port = transport.get_extra_info("sockname")[:2]
        protocol.local_candidate = _candidate("host", component, host, port)
        return protocol

    async def _reflexive(self, hosts: Sequence[StunProtocol]) -> list[Candidate]:
        """Request the public address of each interface; those without a way out, as Docker's bridges, have none."""
        if self.stun_server is None:
            return []
        loop = asyncio.get_running_loop()
        began = loop.time()
        end = began + self._seconds
        try:
            server = await asyncio.wait_for(_resolve(*self.stun_server), self._seconds)
        except (OSError, TimeoutError):
            return []
        # As aioice: IPv4 only.
        reachable = [host for host in hosts if ":" not in host.local_candidate.host]
        pending = {loop.create_task(_reflexive_candidate(host, server)) for host in reachable}
        found: list[Candidate] = []
        try:
            while pending:
                left = max(0.0, end - loop.time())
                done, pending = await asyncio.wait(pending, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                answers = [task.result() for task in done if task.exception() is None]
                if answers and not found:
                    end = min(end, loop.time() + (loop.time() - began) + OTHER_INTERFACES_SECONDS)
                found += answers
                if not done:
                    break
        finally:
            for task in pending:
                task.cancel()
        return found


def _rotated(ports: tuple[int, int] | None) -> Iterable[int]:
    """Each port once, from a random one on; 0, which is any free port, without a range."""
    if ports is None:
        return (0,)
    numbers = range(ports[0], ports[1] + 1)
    start = random.randrange(len(numbers))  # noqa: S311
    return (*numbers[start:], *numbers[:start])


async def _resolve(host: str, port: int) -> tuple[str, int]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM)
    address, number = found[0][4][:2]
    return str(address), int(number)


async def _reflexive_candidate(host: StunProtocol, server: tuple[str, int]) -> Candidate:
    response, _ = await host.request(stun.Message(stun.Method.BINDING, stun.Class.REQUEST), server)
    local = host.local_candidate
    address, port = response.attributes["XOR-MAPPED-ADDRESS"]
    return _candidate("srflx", local.component, address, port, related=(local.host, local.port))


def _candidate(
    kind: str, component: int, host: str, port: int, *, related: tuple[str | None, int | None] = (None, None)
) -> Candidate:
    return Candidate(
        foundation=candidate_foundation(kind, "udp", related[0] or host),
        component=component,
        transport="udp",
        priority=candidate_priority(component, kind),
        host=host,
        port=port,
        type=kind,
        related_address=related[0],
        related_port=related[1],
    )
