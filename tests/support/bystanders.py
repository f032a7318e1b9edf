"""Calls that go on while something happens to another one: every frame comes back, and how late each was."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import psutil
from websockets.sync.client import ClientConnection, connect

from tests.support.launchers import Launcher

INTERVAL = 0.02
"""Seconds between frames, as phones send them."""


def opened(url: str, **headers: str) -> ClientConnection:
    """A connection that is open until it is closed."""
    return connect(url, additional_headers=headers).__enter__()


def held(thread: str) -> float:
    """Seconds that a thread has been ready to run while the machine ran others; 0 where the kernel does not tell.

    The second figure of schedstat: docs.kernel.org/scheduler/sched-stats.html.
    """
    try:
        return int(Path(f"/proc/{thread}/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


def serving(launcher: Launcher, connection: ClientConnection) -> int:
    """The process that serves a connection: the launcher, or with a process for each call a worker of it."""
    port = connection.socket.getsockname()[1]
    for process in psutil.Process(launcher.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any(other.raddr and other.raddr.port == port for other in process.net_connections("tcp")):
                return process.pid
    return launcher.process.pid


class Bystander:
    """An echo call.

    Attributes:
        latencies: Seconds that each frame took to come back, without those in which the process that serves it or a
            reader here had no processor: these say how busy the machine is, not what the launcher does.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._socket = opened(launcher.websocket_url("/ws-client"))
        self._between = [f"{serving(launcher, self._socket)}", f"self/task/{self._socket.recv_events_thread.native_id}"]
        self._stop = threading.Event()
        self.sent = 0
        self.latencies: list[float] = []
        self._threads = [threading.Thread(target=self._receive), threading.Thread(target=self._send)]
        for thread in self._threads:
            thread.start()

    def _now(self) -> float:
        """Seconds, on a clock that stands still while the machine runs others in place of one of those between."""
        return time.monotonic() - sum(map(held, self._between))

    def _send(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._socket.send(str(self._now()))
            self.sent += 1
            due += INTERVAL
            time.sleep(max(0.0, due - time.monotonic()))
        self._socket.send("last")

    def _receive(self) -> None:
        self._between.append(f"self/task/{threading.get_native_id()}")
        while True:
            frame = str(self._socket.recv(timeout=20))
            if frame == "last":
                return
            self.latencies.append(max(0.0, self._now() - float(frame)))

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

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.calls: list[Bystander] = []

    def __enter__(self) -> Bystanders:
        self.calls = [Bystander(self._launcher) for _ in range(2)]
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

    def slowest(self) -> float:
        """Seconds that the slowest frame took."""
        return max(latency for call in self.calls for latency in call.latencies)


def echo_during(
    launcher: Launcher, attack: Callable[[], object], limit: float, latency: Callable[[Bystanders], float]
) -> float:
    """Seconds of latency in other calls during an attack: of the first round below ``limit``, or the best of three."""
    found: list[float] = []
    while len(found) < 3 and min(found, default=limit) >= limit:
        with Bystanders(launcher) as others:
            time.sleep(0.3)
            attack()
            time.sleep(0.3)
        assert others.lost == 0
        found.append(latency(others))
    return min(found)
