"""Serves connections that the launcher has handed to a worker."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from starlette.types import ASGIApp, Receive, Send
from uvicorn.server import ServerState

from pipecat_base.server import server
from pipecat_base.server.connections import Connections

# The bot may run this long after it closed its WebSocket; then the peer sees the end of the connection.
WIND_DOWN_SECONDS = 1.0


class ClosingWebSocket:
    """The end of a WebSocket that the launcher holds a duplicate of; ``lost`` is done when it is lost here.

    After a close handshake it is shut down here, or the peer would wait until the launcher releases it. Any other end
    is left to the launcher, which sends a close code.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_orderly = False
        self.duplicate: socket.socket | None = None

    def watch_receive(self, receive: Receive) -> Receive:
        async def receive_and_watch() -> Any:
            message = await receive()
            self.is_orderly = self.is_orderly or message["type"] == "websocket.disconnect"
            return message

        return receive_and_watch

    def watch_send(self, send: Send) -> Send:
        async def send_and_watch(message: Any) -> None:
            self.is_orderly = self.is_orderly or message["type"] == "websocket.close"
            await send(message)

        return send_and_watch


async def serve_connection(
    app: ASGIApp, connections: Connections, sock: socket.socket, head: bytes, early: bytes, closing: ClosingWebSocket
) -> asyncio.Transport:
    """Serve a connection of the launcher's, or a WebSocket whose head, and bytes after it (``early``), were read."""
    config, state = server.uvicorn_config(app, connections.limits.keep_alive), ServerState()
    config.http, config.ws = server.protocols(connections)
    config.load()
    sock.setblocking(False)
    make: Any = config.ws_protocol_class if head else config.http_protocol_class
    protocol = make(config, state, {})
    if head:
        closing.duplicate = sock.dup()
        connection_made = protocol.connection_made

        def make_connection(transport: asyncio.BaseTransport) -> None:
            connection_made(transport)
            protocol.data_received(head + early)

        protocol.connection_made = make_connection
    _watch_end(protocol, closing)
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    found: asyncio.Transport = transport
    return found


def _watch_end(protocol: Any, closing: ClosingWebSocket) -> None:
    connection_lost = protocol.connection_lost

    def on_connection_lost(error: Exception | None) -> None:
        if closing.duplicate is not None:
            # The bot may not have received the peer's close yet.
            if closing.is_orderly or protocol.has_received_close:
                asyncio.get_running_loop().call_later(WIND_DOWN_SECONDS, _shut_down, closing.duplicate)
            else:
                closing.duplicate.close()
        if not closing.lost.done():
            closing.lost.set_result(None)
        connection_lost(error)

    protocol.connection_lost = on_connection_lost


def _shut_down(duplicate: socket.socket) -> None:
    with contextlib.suppress(OSError):  # already closed
        duplicate.shutdown(socket.SHUT_WR)  # not SHUT_RDWR: unread input would cause a reset
        duplicate.close()
