"""The listening socket, and what comes of it."""

from __future__ import annotations

import asyncio
import socket

from pipecat_base.server.server import listen
from tests.support.launchers import free_port


def test_what_is_written_is_sent_at_once() -> None:
    """Else an answer's body waits for the peer to acknowledge its head: forty milliseconds, for audio too."""

    async def scene() -> int:
        port = free_port()
        with listen("127.0.0.1", port) as listener, socket.create_connection(("127.0.0.1", port)):
            sock, _ = await asyncio.get_running_loop().sock_accept(listener)
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(asyncio.Protocol, sock)
            found = transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            transport.close()
            return int(found)

    assert asyncio.run(scene()) != 0
