"""Accepts connections while the event loop cannot.

While ``bot.py`` is being imported there is no event loop yet, and a bot may block it (``time.sleep`` in a coroutine).
An orchestrator that gets no response from ``/livez`` would kill every call of the process. So a thread watches the
loop's heartbeat and, only while it is missing, accepts connections: it answers the two probes, and hands everything
else to the loop once it runs again. A bot that holds the GIL in C code stops this thread too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from pipecat_base.config.hosts import HOST_HEADERS
from pipecat_base.errors import LAUNCHER_HEADER, Starting
from pipecat_base.logs.streams import write_line
from pipecat_base.server.loop_monitor import HEARTBEAT_SECONDS, LOG_STALL_SECONDS, LoopMonitor
from pipecat_base.server.paths import STATUS
from pipecat_base.server.signals import SIGNALS
from pipecat_base.server.startup_problem import PAGE_HEADERS, StartupProblem

PENDING_POLL_SECONDS = 0.05
MAX_PENDING_CONNECTIONS = 256
MAX_PEEK_BYTES = 65536
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Then an incomplete request goes to the loop, or, without a loop yet, its connection is closed.
REQUEST_LINE_SECONDS = 1.0


def _close(sock: socket.socket) -> None:
    # Unread data would turn the close into a reset, and the answer would be lost.
    with contextlib.suppress(OSError):
        sock.recv(65536)
    sock.close()


class Watchdog(threading.Thread):
    """Answers probes while the loop cannot, and ends the process at its deadline.

    Args:
        stall_limit: Seconds of a blocked loop after which ``/livez`` answers 503.
        holds: Early requests wait for the loop instead of getting a 503: a gateway's callers are people.
    """

    def __init__(
        self, listener: socket.socket, *, launcher: str, stall_limit: float, project: str, holds: bool = False
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._listener = listener.dup()
        self._listener.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._launcher = launcher
        self._stall_limit = stall_limit
        self._monitor = LoopMonitor(project, consequence="every session waits for it")
        self._holds = holds
        self._problem: StartupProblem | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._protocol: Callable[[], asyncio.Protocol] | None = None
        self._pending: dict[socket.socket, float] = {}
        self._closing = threading.Event()
        self._deadline: tuple[float, int, str] | None = None
        self._on_beat: Callable[[], None] | None = None

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.Protocol],
        *,
        on_beat: Callable[[], None],
    ) -> None:
        """Called on ``loop``, on which the server runs; ``on_beat`` is called with every heartbeat."""
        self._protocol = protocol
        self._on_beat = on_beat
        self._loop = loop
        self._beat()

    def serve_problem(self, problem: StartupProblem) -> None:
        """There is no loop, and may be none for long: answer every request, pending ones too, with this 503."""
        self._loop, self._protocol = None, None
        self._problem = problem
        self._holds = False

    def stop_accepting(self) -> None:
        self._closing.set()

    def set_deadline(self, seconds: float, status: int, reason: str) -> None:
        """End the process ``seconds`` from now if it still runs; the earliest deadline counts. Signal-safe."""
        at = time.monotonic() + seconds
        if self._deadline is None or at < self._deadline[0]:
            self._deadline = (at, status, reason)

    def run(self) -> None:
        # The kernel may deliver a signal to any thread that does not block it. Python runs its handler in the main
        # thread, which would not wake from a system call of the bot for a signal that this thread received.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            if self._closing.is_set():
                self._close_all()
                time.sleep(HEARTBEAT_SECONDS)
            elif self._loop is None or self._monitor.is_blocked():
                self._accept_for_loop()
            else:
                self._hand_over_all()
                self._closing.wait(HEARTBEAT_SECONDS)
            self._enforce_deadline()

    def _beat(self) -> None:
        self._monitor.beat()
        if self._on_beat is not None:
            self._on_beat()
        if self._loop is not None and not self._closing.is_set():
            self._loop.call_later(HEARTBEAT_SECONDS, self._beat)

    def _accept_for_loop(self) -> None:
        # Not select(): it is limited to descriptors below 1024, and a thousand calls have more.
        ready = self._poll.poll(1000 * (PENDING_POLL_SECONDS if self._pending else HEARTBEAT_SECONDS))
        # The loop may have started (again) during the wait: then it accepts what is still in the queue.
        if ready and (self._loop is None or self._monitor.is_blocked()):
            self._accept()
        now = time.monotonic()
        for sock, since in list(self._pending.items()):
            self._dispatch(sock)
            if sock in self._pending and now - since > REQUEST_LINE_SECONDS and not self._waits_for_loop(sock):
                self._hand_over(sock)

    def _waits_for_loop(self, sock: socket.socket) -> bool:
        """True when a complete request is waiting that the event loop will answer once it runs."""
        if not self._holds or self._loop is not None:
            return False
        with contextlib.suppress(OSError):
            return b"\r\n\r\n" in sock.recv(MAX_PEEK_BYTES, socket.MSG_PEEK)
        return False

    def _accept(self) -> None:
        while len(self._pending) >= MAX_PENDING_CONNECTIONS:
            self._drop(next(iter(self._pending)))  # the oldest
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # the loop has accepted it
        except OSError:
            time.sleep(HEARTBEAT_SECONDS)  # out of descriptors, perhaps: the connection stays in the queue
            return
        connection.setblocking(False)
        self._pending[connection] = time.monotonic()

    def _dispatch(self, sock: socket.socket) -> None:
        try:
            head = sock.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if not head:
            self._drop(sock)
            return
        line, complete, _ = head.partition(b"\r\n")
        if not complete and len(head) < 4096:
            return  # more may come
        target = line.split(b" ")[1].split(b"?")[0] if line.count(b" ") == 2 else b""
        if target == b"/livez":
            self._answer(sock, *self._liveness())
        elif target == b"/readyz" and self._loop is None:
            self._answer(sock, 503, {"ready": False, "state": "starting"})
        elif target == b"/readyz":
            # Not for a short stall: the loop may run again before the probe times out.
            if self._monitor.silent_seconds > LOG_STALL_SECONDS:
                self._answer(sock, 503, {"ready": False, "state": "blocked"})
        elif self._loop is not None:
            self._hand_over(sock)
        elif self._problem is not None:
            self._send_problem(sock, line.startswith(b"GET "), target, self._problem)
        elif not self._holds:
            self._answer(sock, Starting.status, Starting("The bot is still starting.").body())

    def _send_problem(self, sock: socket.socket, is_get: bool, target: bytes, problem: StartupProblem) -> None:
        try:
            head, is_whole, _ = sock.recv(MAX_PEEK_BYTES, socket.MSG_PEEK).partition(b"\r\n\r\n")
        except OSError:  # reset
            self._drop(sock)
            return
        if not is_whole:
            return  # more may come
        fields = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:]]
        problem = problem.for_visitor(value.strip() for name, _, value in fields if name.lower() in HOST_HEADERS)
        if is_get and target == b"/":
            self._send(sock, Starting.status, "text/html; charset=utf-8", problem.as_page(), PAGE_HEADERS)
        elif is_get and target == STATUS.encode():
            self._answer(sock, Starting.status, problem.as_answer())
        else:
            self._answer(sock, Starting.status, Starting(problem.reason).body())

    def _liveness(self) -> tuple[int, dict[str, Any]]:
        if self._loop is None:
            return 200, {"status": "starting"}
        seconds = self._monitor.silent_seconds
        status = 200 if seconds <= self._stall_limit else 503
        return status, {"status": "blocked", "seconds": round(seconds, 1)}

    def _answer(self, sock: socket.socket, status: int, body: dict[str, Any]) -> None:
        self._send(sock, status, "application/json", json.dumps(body).encode())

    def _send(
        self,
        sock: socket.socket,
        status: int,
        content_type: str,
        payload: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        reason = {200: "OK", 503: "Service Unavailable"}[status]
        retry = (
            f"retry-after: {Starting.retry_after}\r\n{LAUNCHER_HEADER}: {self._launcher}\r\n" if status != 200 else ""
        )
        head = (
            f"HTTP/1.1 {status} {reason}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(payload)}\r\n{retry}connection: close\r\n"
        )
        head += "".join(f"{name}: {value}\r\n" for name, value in headers.items()) + "\r\n"
        try:
            sock.sendall(head.encode() + payload)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        self._drop(sock)

    def _hand_over_all(self) -> None:
        for sock in list(self._pending):
            self._hand_over(sock)

    def _hand_over(self, sock: socket.socket) -> None:
        loop, protocol = self._loop, self._protocol
        del self._pending[sock]
        if loop is None or protocol is None:
            _close(sock)
            return

        def adopt() -> None:
            task = loop.create_task(loop.connect_accepted_socket(protocol, sock))
            task.add_done_callback(lambda done: done.cancelled() or done.exception())

        try:
            loop.call_soon_threadsafe(adopt)
        except RuntimeError:
            sock.close()

    def _drop(self, sock: socket.socket) -> None:
        del self._pending[sock]
        _close(sock)

    def _close_all(self) -> None:
        for sock in list(self._pending):
            self._drop(sock)
        self._listener.close()

    def _enforce_deadline(self) -> None:
        if self._deadline is None or time.monotonic() < self._deadline[0]:
            return
        _, status, reason = self._deadline
        write_line(2, f"pipecat-base: {reason}")
        os._exit(status)
