"""Calls that go on while something happens to another one: every frame comes back, and how late each was."""

from __future__ import annotations

import threading
import time
from types import TracebackType

from websockets.sync.client import ClientConnection, connect

INTERVAL = 0.02
"""Seconds between frames, as phones send them."""


def opened(url: str, **headers: str) -> ClientConnection:
    """A connection that is open until it is closed."""
    return connect(url, additional_headers=headers).__enter__()


class Bystander:
    """An echo call."""

    def __init__(self, url: str) -> None:
        self._socket = opened(url)
        self._stop = threading.Event()
        self.sent = 0
        self.latencies: list[float] = []
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._socket.send(str(time.monotonic()))
            self.sent += 1
            due += INTERVAL
            time.sleep(max(0.0, due - time.monotonic()))
        self._socket.send("last")

    def _receive(self) -> None:
        while True:
            frame = str(self._socket.recv(timeout=20))
            if frame == "last":
                return
            self.latencies.append(time.monotonic() - float(frame))

    def end(self) -> None:
        """Stop sending, wait for the last frame."""
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        self._socket.close()

    def p99(self) -> float:
        """Seconds."""
        ordered = sorted(self.latencies)
        return ordered[int(len(ordered) * 0.99)]


class Bystanders:
    """Two of them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.calls: list[Bystander] = []

    def __enter__(self) -> Bystanders:
        self.calls = [Bystander(self._url) for _ in range(2)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for call in self.calls:
            call.end()

    @property
    def lost(self) -> int:
        """Frames that did not come back."""
        return sum(call.sent - len(call.latencies) for call in self.calls)

    def p99(self) -> float:
        """Seconds; of the worse one."""
        return max(call.p99() for call in self.calls)
