"""Processes that make processes: a loop without threads that forks on request and tells of the ends.

The nursery is forked from the launcher before it has a thread, and has not imported the bot; what it makes imports the
bot. A template is one of those: it forks workers. Each dies with the one that has made it (PR_SET_PDEATHSIG, prctl(2)),
so that a launcher that is killed leaves nothing behind.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import logging
import os
import select
import signal
import socket
import sys
import warnings
import weakref
from collections.abc import Callable
from typing import Any, NoReturn

from pipecat_base.config import environment
from pipecat_base.logs.streams import flush_streams
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import Close, Exited, Made, Make, Message, NotMade
from pipecat_base.workers.process_tree import adopt_orphans, descendants, relations

PR_SET_PDEATHSIG = 1
LOOK = 0.05
"""Seconds between looks at children where the kernel has no pidfd_open(2)."""


class ForkServer:
    """Forks on request.

    Args:
        channel: To the launcher.
        grow: Called in each child with its socket; does not return.
        other: Takes messages of other kinds.
    """

    def __init__(
        self,
        channel: Channel,
        grow: Callable[[socket.socket, Make], NoReturn],
        other: Callable[[Message], None] | None = None,
    ) -> None:
        self._channel = channel
        self._grow = grow
        self._other = other
        self._children: dict[int, int | None] = {}
        self._inherited: set[int] = set()
        """Children that the bot's import has started; they are no call's."""
        self._ends_orphans = False
        self._on_child: Any = signal.SIG_DFL

    def run(self) -> NoReturn:
        """Serve until the launcher is gone."""
        # The bot may wait for every child, or ignore SIGCHLD: their ends would be lost.
        self._on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._inherited = {pid for pid, relation in relations().items() if relation.parent == os.getpid()}
        adopt_orphans()
        while True:
            self._reap()
            self._end_orphans()
            try:
                received = self._channel.receive(0)
            except TimeoutError:
                self._wait()
                continue
            if received is None:
                leave(0)
            message, descriptors = received
            if isinstance(message, Close):
                atexit._run_exitfuncs()
                leave(0)
            if isinstance(message, Make):
                self._make(message, socket.socket(fileno=descriptors[0]))
            elif self._other is not None:
                self._other(message)
            self._channel.flush(1.0)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        for pidfd in self._children.values():
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
        is_blind = None in self._children.values() or self._ends_orphans
        with contextlib.suppress(InterruptedError):
            poll.poll(LOOK * 1000 if is_blind else None)

    def _make(self, request: Make, sock: socket.socket) -> None:
        parent = os.getpid()
        flush_streams()  # or the child would write it too
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads; whoever asks has looked at them
                child = os.fork()
        except OSError as error:
            sock.close()
            self._channel.send(NotMade(request.number, error.strerror or str(error)))
            return
        if child == 0:
            os.setpgid(0, 0)  # before any of the bot's code: signals to its group reach no other call
            die_with(parent)
            environment.hide_from_other_processes(False)  # the launcher measures its memory
            adopt_orphans()
            if self._on_child is not None:  # it is no handler of Python's
                signal.signal(signal.SIGCHLD, self._on_child)
            self._forget()
            self._grow(sock, request)
        sock.close()
        try:
            self._children[child] = os.pidfd_open(child)
        except (OSError, AttributeError):
            self._children[child] = None
        self._channel.send(Made(request.number, child))

    def _forget(self) -> None:
        """In a child: what is its maker's."""
        self._channel.close()
        for pidfd in self._children.values():
            if pidfd is not None:
                os.close(pidfd)
        self._children.clear()

    def _reap(self) -> None:
        for child, pidfd in list(self._children.items()):
            try:
                found, status, usage = os.wait4(child, os.WNOHANG)
                if not found:
                    continue
                exited = Exited(child, status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)
            except ChildProcessError:  # a thread of the bot's waits for every child
                exited = Exited(child, 0)
            del self._children[child]
            if pidfd is not None:
                os.close(pidfd)
            self._ends_orphans = True
            self._channel.send(exited)

    def _end_orphans(self) -> None:
        """Kill and reap what workers have left behind, in whichever process groups, until nothing is found."""
        if not self._ends_orphans:
            return
        ours, group, known = os.getpid(), os.getpgrp(), relations()
        kept = self._inherited | set(self._children)
        # A child of the import's may have forked, too: that is in our group.
        orphans = {p for p, r in known.items() if r.parent == ours and p not in kept and r.group != group}
        self._ends_orphans = bool(orphans)
        ending = descendants(orphans, known)
        # A bot can move a child into a group of others.
        shared = {relation.group for pid, relation in known.items() if pid not in ending}
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if known[orphan].group in shared:
                    os.kill(orphan, signal.SIGKILL)
                else:  # all at once: each may be forking the next
                    os.killpg(known[orphan].group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)


def leave(status: int) -> NoReturn:
    """End this process: what was printed is written, and nothing else is done."""
    flush_streams()
    os._exit(status)


def forget_exit_handlers() -> None:
    """In a forked process: what was to be done at the end of the process that has forked it is for that one to do."""
    atexit._clear()
    registry: Any = weakref.finalize
    registry._registry.clear()
    registry._registered_with_atexit = False
    atexit.register(logging.shutdown)
    process, util = sys.modules.get("multiprocessing.process"), sys.modules.get("multiprocessing.util")
    if process is not None:
        process._children.clear()
    if util is not None:
        util._finalizer_registry.clear()
        atexit.register(util._exit_function)


def die_with(parent: int) -> None:
    """Be killed when the process that has forked this one ends."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def leave_signals_to_launcher() -> None:
    """SIGTERM and SIGINT may come to every process of a group or a container; the launcher drains, and ends the rest.

    Handlers that do nothing: programs that the bot starts do not inherit them.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        found = signal.getsignal(number)
        if not isinstance(found, _Deaf) or found.process != os.getpid():
            signal.signal(number, _Deaf())


class _Deaf:
    """Does nothing, but in a process that the bot has forked: that one ends."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        if os.getpid() != self.process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def how_it_ended(exited: Exited | None) -> str:
    """In words: "was killed by SIGSEGV"."""
    if exited is None:
        return "ended"
    status = exited.status
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        try:
            return f"was killed by {signal.Signals(number).name}"
        except ValueError:
            return f"was killed by signal {number}"
    return f"ended with exit status {os.WEXITSTATUS(status)}"
