from __future__ import annotations

import asyncio
import socket

from starlette.responses import PlainTextResponse

from pipecat_base.config.settings import ServerLimits
from pipecat_base.server.connections import Connections
from pipecat_base.server.handoff import ClosingWebSocket, serve_connection


def test_a_connection_stays_open_after_an_answer_that_did_not_wait_for_the_body() -> None:
    """The rest of the body would reset a closed one, and the answer would be lost."""

    async def main() -> None:
        ours, workers = socket.socketpair()
        connections = Connections(ServerLimits(), ())
        transport = await serve_connection(
            PlainTextResponse("early"), connections, workers, b"", b"", ClosingWebSocket()
        )
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo")
        assert b"200 OK" in await reader.readuntil(b"early")
        await asyncio.sleep(0.1)
        writer.write(b"dy")
        writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readuntil(b"early"), 5)
        writer.close()
        transport.abort()

    asyncio.run(main())
