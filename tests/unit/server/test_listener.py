"""The listening socket."""

from __future__ import annotations

import asyncio
import socket

from pipecat_base.server.server import listen
from tests.support.launchers import free_port


def test_small_writes_are_sent_at_once() -> None:
    """Otherwise a response's body waits 40 ms for the peer to acknowledge its head; audio too."""

    async def scene() -> int:
        port = free_port()
        with listen("127.0.0.1", port) as listener, socket.create_connection(("127.0.0.1", port)):
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, sock)
            found = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.close()
            return int(found)

    assert asyncio.run(scene()) != 0
