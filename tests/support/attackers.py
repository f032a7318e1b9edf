"""Hostile peers on raw sockets."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType

import psutil

from tests.support.launchers import Launcher, own_memory

TEXT, BINARY, CONTINUATION, PING, PONG = 0x1, 0x2, 0x0, 0x9, 0xA
FIN = 0x80


def dial(launcher: Launcher) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", launcher.port), timeout=20)
    launcher.sockets.append(sock)
    return sock


def upgrade(launcher: Launcher, path: str = "/ws-client") -> socket.socket:
    """An open WebSocket."""
    sock = dial(launcher)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    sock.sendall(f"{head}sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += sock.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return sock


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A small client frame, masked with zeros."""
    assert len(payload) < 126
    return struct.pack("!BB", opcode | (FIN if fin else 0), 0x80 | len(payload)) + bytes(4) + payload


def answer_of(sock: socket.socket, timeout: float = 20) -> bytes:
    """Everything that is received until the other end closes."""
    sock.settimeout(timeout)
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            data += chunk
    return data


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def close_code_of(sock: socket.socket, timeout: float = 20) -> int:
    """The code of the first close frame; 1006 without one."""
    data = answer_of(sock, timeout)
    at = 0
    while at + 2 <= len(data):
        opcode, size = data[at] & 0xF, data[at + 1] & 0x7F
        at += 2
        if size == 126:
            size, at = struct.unpack_from("!H", data, at)[0], at + 2
        elif size == 127:
            size, at = struct.unpack_from("!Q", data, at)[0], at + 8
        if opcode == 0x8:
            return int(struct.unpack_from("!H", data, at)[0]) if size >= 2 else 1005
        at += size
    return 1006


class Flood:
    """Sends the same bytes repeatedly until it is stopped, or the other end closes.

    Attributes:
        sent: Bytes.
    """

    def __init__(self, sock: socket.socket, data: bytes, *, rate: float | None = None) -> None:
        self._sock = sock
        self._data = data
        self._rate = rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent = 0
        self.is_refused = False
        """The other end has closed."""

    def __enter__(self) -> Flood:
        self._sock.settimeout(0.2)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(20)

    def _run(self) -> None:
        began, at = time.monotonic(), 0
        while not self._stop.is_set():
            try:
                size = self._sock.send(self._data[at:])
            except TimeoutError:
                continue
            except OSError:
                self.is_refused = True
                return
            self.sent += size
            at = (at + size) % len(self._data)
            if self._rate is not None:
                time.sleep(max(0.0, began + self.sent / self._rate - time.monotonic()))


def memory(launcher: Launcher) -> int:
    """Private memory of a launcher and its child processes, in bytes."""
    process = psutil.Process(launcher.process.pid)
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError):
            total += own_memory(each.pid)
    return total


@contextlib.contextmanager
def growth(launcher: Launcher) -> Iterator[Callable[[], float]]:
    """The largest growth in megabytes since the block began, sampled every 100 ms."""
    before = most = memory(launcher)
    over = threading.Event()

    def sample() -> None:
        nonlocal most
        while not over.wait(0.1):
            most = max(most, memory(launcher))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield lambda: (most - before) / 2**20
    finally:
        over.set()
        thread.join()
