"""Stands in for the event loop when it cannot answer.

While ``bot.py`` is being imported there is no event loop yet; while a bot blocks it (``time.sleep`` in a coroutine)
there is none for anybody. An orchestrator that gets no answer from ``/livez`` would kill every call of the process.
So a thread watches the loop's heartbeat and, only while it is missing, accepts connections itself: it answers the two
probes, and hands everything else to the loop for when it is back. It also ends the process when the shutdown deadline
passes and the loop cannot.

A bot that holds the interpreter's lock in C code stops this thread too.
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
from pipecat_base.server.loop_monitor import BEAT, WORTH_A_LINE, LoopMonitor
from pipecat_base.server.paths import STATUS
from pipecat_base.server.signals import SIGNALS
from pipecat_base.server.startup_problem import HEADERS, StartupProblem

GLANCE = 0.05
"""Seconds between looks at connections whose request line has not come yet."""
MAX_PENDING = 256
"""Connections at once that wait for the loop."""
MAX_PEEK = 65536
NO_HEADERS: Mapping[str, str] = MappingProxyType({})
"""Bytes of a head that is looked at."""
PATIENCE = 1.0
"""Seconds that it may take to come; then the loop gets the connection, or, without a loop yet, it is closed."""


def _close(sock: socket.socket) -> None:
    # Unread data would turn the close into a reset, and the answer would be lost.
    with contextlib.suppress(OSError):
        sock.recv(65536)
    sock.close()


class Watchdog(threading.Thread):
    """Answers probes while the loop cannot, and ends the process at its deadline.

    Args:
        listener: The listening socket, shared with the server; this keeps a duplicate.
        launcher: Name and version, for the header of refusals.
        stall_limit: Seconds of a blocked loop after which ``/livez`` answers 503.
        project: The user's folder, to show the line that blocks.
        holds: Whether callers who come before there is a loop wait for it, instead of getting a 503: those of a
            gateway are people, not a platform that tries again.
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
        self._stalls = LoopMonitor(project, consequence="every session waits for it")
        self._holds = holds
        self._problem: StartupProblem | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._protocol: Callable[[], asyncio.Protocol] | None = None
        self._pending: dict[socket.socket, float] = {}
        self._released = threading.Event()
        self._deadline: tuple[float, int, str] | None = None
        self._on_beat: Callable[[], None] | None = None

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol: Callable[[], asyncio.Protocol],
        *,
        on_beat: Callable[[], None],
    ) -> None:
        """The server runs on ``loop``; ``protocol`` makes the handler of one connection. Called on the loop.

        ``on_beat`` is called with every heartbeat, on the loop.
        """
        self._protocol = protocol
        self._on_beat = on_beat
        self._loop = loop
        self._beat()

    def stand_in(self, problem: StartupProblem) -> None:
        """There is no loop, and nobody knows when there will be: callers, those who wait too, get a 503 with this."""
        self._loop, self._protocol = None, None
        self._problem = problem
        self._holds = False

    def release(self) -> None:
        """Accept nothing more: the server is closing. The deadline stays in force."""
        self._released.set()

    def end_by(self, seconds: float, status: int, reason: str) -> None:
        """End the process with ``status`` if it still runs ``seconds`` from now; the soonest counts.

        Safe in a signal handler.
        """
        at = time.monotonic() + seconds
        if self._deadline is None or at < self._deadline[0]:
            self._deadline = (at, status, reason)

    def run(self) -> None:
        """The thread."""
        # A thread that makes another one sees what has come meanwhile, and would take it: where the bot blocks the loop
        # in a system call, Python would never get to its handler.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            if self._released.is_set():
                self._close_all()
                time.sleep(BEAT)
            elif self._loop is None or self._stalls.look():
                self._stand_in()
            else:
                self._hand_over_all()
                self._released.wait(BEAT)
            self._enforce_deadline()

    def _beat(self) -> None:
        self._stalls.beat()
        if self._on_beat is not None:
            self._on_beat()
        if self._loop is not None and not self._released.is_set():
            self._loop.call_later(BEAT, self._beat)

    def _stand_in(self) -> None:
        # Not select(): it knows no descriptor above 1023, and a thousand calls have more.
        called = self._poll.poll(1000 * (GLANCE if self._pending else BEAT))
        # The loop may have come (back) during the wait: what is still in the queue is its own then.
        if called and (self._loop is None or self._stalls.look()):
            self._accept()
        now = time.monotonic()
        for sock, since in list(self._pending.items()):
            self._triage(sock)
            if sock in self._pending and now - since > PATIENCE and not self._waits_for_loop(sock):
                self._hand_over(sock)

    def _waits_for_loop(self, sock: socket.socket) -> bool:
        """Whether a caller has asked for something that there will be a loop for."""
        if not self._holds or self._loop is not None:
            return False
        with contextlib.suppress(OSError):
            return b"\r\n\r\n" in sock.recv(MAX_PEEK, socket.MSG_PEEK)
        return False

    def _accept(self) -> None:
        while len(self._pending) >= MAX_PENDING:
            self._drop(next(iter(self._pending)))  # whoever has waited for the longest time
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:
            return  # the loop was quicker
        except OSError:
            time.sleep(BEAT)  # out of descriptors, say: the connection stays in the queue
            return
        connection.setblocking(False)
        self._pending[connection] = time.monotonic()

    def _triage(self, sock: socket.socket) -> None:
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
            # Not for a hiccup: the loop may be back before the probe has given up.
            if self._stalls.silent > WORTH_A_LINE:
                self._answer(sock, 503, {"ready": False, "state": "blocked"})
        elif self._loop is not None:
            self._hand_over(sock)
        elif self._problem is not None:
            self._tell_why(sock, line.startswith(b"GET "), target, self._problem)
        elif not self._holds:
            self._answer(sock, Starting.status, Starting("The bot is still starting.").body())

    def _tell_why(self, sock: socket.socket, is_get: bool, target: bytes, problem: StartupProblem) -> None:
        """Why nothing is served: all of it to whoever works on the bot."""
        try:
            head, is_whole, _ = sock.recv(MAX_PEEK, socket.MSG_PEEK).partition(b"\r\n\r\n")
        except OSError:  # reset
            self._drop(sock)
            return
        if not is_whole:
            return  # more may come
        fields = [line.decode("latin-1").partition(":") for line in head.split(b"\r\n")[1:]]
        problem = problem.for_visitor(value.strip() for name, _, value in fields if name.lower() in HOST_HEADERS)
        if is_get and target == b"/":
            self._send(sock, Starting.status, "text/html; charset=utf-8", problem.as_page(), HEADERS)
        elif is_get and target == STATUS.encode():
            self._answer(sock, Starting.status, problem.as_answer())
        else:
            self._answer(sock, Starting.status, Starting(problem.reason).body())

    def _liveness(self) -> tuple[int, dict[str, Any]]:
        if self._loop is None:
            return 200, {"status": "starting"}
        seconds = self._stalls.silent
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
