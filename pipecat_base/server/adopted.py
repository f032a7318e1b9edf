"""Connections that the launcher has handed over: served here as the launcher would, and ended for both."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from starlette.types import ASGIApp, Receive, Send
from uvicorn.server import ServerState

from pipecat_base.server import server
from pipecat_base.server.connections import Connections
from pipecat_base.server.http import HttpConnection

WIND_DOWN = 1.0
"""Seconds that a bot may go on after its WebSocket was closed before the peer is told of the connection's end."""


class Closing:
    """The end of a WebSocket that the launcher holds too.

    One that was closed in order is shut down: its peer would wait for that until the launcher lets go. Any other is
    left to the launcher, which closes it with a code.

    Attributes:
        lost: Done when the connection is over here.
    """

    def __init__(self) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_orderly = False
        self.ours: socket.socket | None = None
        """A duplicate of the connection's."""

    def noting_receive(self, receive: Receive) -> Receive:
        """The same, and the end that the peer has made is noted."""

        async def receive_and_note() -> Any:
            message = await receive()
            self.is_orderly = self.is_orderly or message["type"] == "websocket.disconnect"
            return message

        return receive_and_note

    def noting_send(self, send: Send) -> Send:
        """The same, and the end that the bot makes is noted."""

        async def send_and_note(message: Any) -> None:
            self.is_orderly = self.is_orderly or message["type"] == "websocket.close"
            await send(message)

        return send_and_note


async def connect(
    app: ASGIApp, connections: Connections, sock: socket.socket, head: bytes, early: bytes, closing: Closing
) -> asyncio.Transport:
    """Serve one connection of which the head of a request, and what came after it, was read already."""
    ours = sock.dup()
    config, state = server.configuration(app), ServerState()
    config.http, config.ws = server.protocols(connections)
    config.load()
    sock.setblocking(False)
    protocol: Any = HttpConnection(config, state, {}, connections=connections)
    connection_made = protocol.connection_made

    def make_connection(transport: asyncio.BaseTransport) -> None:
        connection_made(transport)
        if head:  # before anything is read: what follows the head is not for this protocol
            protocol.begin(head)
            _watch_end(transport, ours, closing)
            if early:
                transport.get_protocol().data_received(early)  # type: ignore[attr-defined]

    protocol.connection_made = make_connection
    transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, sock)
    if not head:
        ours.close()
    found: asyncio.Transport = transport
    return found


def _watch_end(transport: asyncio.BaseTransport, ours: socket.socket, closing: Closing) -> None:
    closing.ours = ours
    upgraded: Any = transport.get_protocol()
    connection_lost = upgraded.connection_lost

    def note_loss(error: Exception | None) -> None:
        if closing.is_orderly:
            asyncio.get_running_loop().call_later(WIND_DOWN, _shut_down, ours)
        else:
            ours.close()
        if not closing.lost.done():
            closing.lost.set_result(None)
        connection_lost(error)

    upgraded.connection_lost = note_loss


def _shut_down(ours: socket.socket) -> None:
    """For a bot that winds down after it has closed: its peer waits for the connection's end."""
    with contextlib.suppress(OSError):  # closed by now
        ours.shutdown(socket.SHUT_WR)  # not both: what the peer has sent on would make a reset of it
        ours.close()
