"""HTTP and WebSockets byte by byte: a client library would not send what is fuzzed here."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

TIMEOUT = 20.0
"""Seconds for an answer: a request for a session that waits for its offer waits with it."""
Headers = Sequence[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes


def request(port: int, method: str, target: bytes, headers: Headers, body: bytes) -> Answer:
    """One request on a connection of its own."""
    length = (b"content-length", str(len(body)).encode())
    with _sent(port, method, target, [*headers, length, (b"connection", b"close")], body) as sock:
        return _answer(sock, method)


def shake_hands(port: int, target: bytes, headers: Headers, frames: Sequence[bytes]) -> Answer:
    """Open a WebSocket and send ``frames``, whole or broken; then leave without a word."""
    upgrade = [(b"connection", b"Upgrade"), (b"upgrade", b"websocket"), (b"sec-websocket-version", b"13")]
    key = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
    with _sent(port, "GET", target, [*upgrade, key, *headers], b"") as sock:
        answer = _answer(sock, "GET")
        if answer.status == 101:
            with contextlib.suppress(OSError):  # the server may have closed it
                for frame in frames:
                    sock.sendall(frame)
        return answer


def frame(opcode: int, payload: bytes, *, last: bool = True) -> bytes:
    """A masked frame of a client (RFC 6455, section 5.2)."""
    size = len(payload)
    head = bytes([opcode | (0x80 if last else 0)])
    head += bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + size.to_bytes(2, "big")
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[slot % 4] for slot, byte in enumerate(payload))


def _sent(port: int, method: str, target: bytes, headers: Headers, body: bytes) -> socket.socket:
    lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    try:
        # It may be refused before the whole body is read.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sock.sendall(method.encode() + b" " + target + b" HTTP/1.1\r\n" + lines + b"\r\n" + body)
    except BaseException:
        sock.close()
        raise
    return sock


def _answer(sock: socket.socket, method: str) -> Answer:
    response = http.client.HTTPResponse(sock, method=method)
    try:
        response.begin()
        body = b"" if response.status == 101 else response.read()
        return Answer(response.status, response.getheader("content-type", ""), body)
    finally:
        response.close()
