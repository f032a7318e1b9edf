"""Callers who abort before, in and right after a handshake leave no traceback, session or used slot."""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from tests.support.launchers import Launcher, until

ABORTS = 20
RESET = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def site() -> Iterator[Launcher]:
    with Launcher("hostile", PIPECAT_GATEWAY="1", PIPECAT_IDLE_PROCESSES="4") as running:
        yield running


@pytest.mark.parametrize("path", ["/ws-client", "/ws", "/nowhere", "/sessions/none/ws-client", "/ws/token", "/bots"])
@pytest.mark.parametrize("after", ["the head", "half a head", "a byte of the answer", "a frame", "the whole answer"])
def test_aborted_handshakes_leave_nothing_behind(site: Launcher, path: str, after: str) -> None:
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    head += f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
    for _ in range(ABORTS):
        with socket.create_connection(("127.0.0.1", site.port), timeout=20) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.sendall(head[: len(head) // 2 if after == "half a head" else None].encode())
            if after == "a byte of the answer":
                sock.recv(1)
            elif after == "a frame":
                sock.sendall(b"\x81\x82\0\0\0\0hi")
            elif after == "the whole answer":
                sock.recv(4096)
    until(lambda: site.http.get("/sessions").json() == {"sessions": []}, "the end of all sessions")
    with connect(site.websocket_url("/ws-client"), proxy=None) as websocket:
        websocket.send("still served")
        assert websocket.recv(20) == "still served"
    assert "Traceback" not in site.log()
    assert site.lines("| ERROR ") == []
