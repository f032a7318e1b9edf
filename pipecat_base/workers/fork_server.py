"""Processes that fork others: an event loop without threads, which forks on request and reports how children end.

The fork server is forked from the launcher before that has a thread. It has not imported the bot; its children do, and
some are templates, which fork workers. Each dies with its parent (PR_SET_PDEATHSIG, prctl(2)).
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
from pipecat_base.workers.ipc.messages import Close, Exited, Fork, Forked, Message
from pipecat_base.workers.process_tree import adopt_orphans, descendants, list_processes

PR_SET_PDEATHSIG = 1
# Where the kernel has no pidfd_open(2), children are polled.
POLL_INTERVAL_SECONDS = 0.05


class ForkServer:
    """Serves :class:`Fork` requests; ``run_child`` is called in each child with its socket and does not return."""

    def __init__(
        self,
        channel: Channel,
        run_child: Callable[[socket.socket, Fork], NoReturn],
        on_other_message: Callable[[Message], None] | None = None,
    ) -> None:
        self._channel = channel
        self._run_child = run_child
        self._on_other_message = on_other_message
        self._children: dict[int, int | None] = {}
        self._inherited: set[int] = set()  # children that the import of the bot has started
        self._ends_orphans = False
        self._on_child: Any = signal.SIG_DFL

    def run(self) -> NoReturn:
        # The bot may wait for every child, or ignore SIGCHLD: their ends would be lost.
        self._on_child = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._inherited = {pid for pid, entry in list_processes().items() if entry.parent == os.getpid()}
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
                exit_process(0)
            message, descriptors = received
            if isinstance(message, Close):
                atexit._run_exitfuncs()
                exit_process(0)
            if isinstance(message, Fork):
                self._fork(message, socket.socket(fileno=descriptors[0]))
            elif self._on_other_message is not None:
                self._on_other_message(message)
            self._channel.flush(1.0)

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        for pidfd in self._children.values():
            if pidfd is not None:
                poll.register(pidfd, select.POLLIN)
        must_poll = None in self._children.values() or self._ends_orphans
        with contextlib.suppress(InterruptedError):
            poll.poll(POLL_INTERVAL_SECONDS * 1000 if must_poll else None)

    def _fork(self, request: Fork, sock: socket.socket) -> None:
        parent = os.getpid()
        flush_streams()  # or the child would write it too
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # about threads: the launcher has checked for them
                child = os.fork()
        except OSError as error:
            sock.close()
            self._channel.send(Forked(request.number, problem=error.strerror or str(error)))
            return
        if child == 0:
            os.setpgid(0, 0)  # before any of the bot's code: signals to its group reach no other call
            die_with(parent)
            environment.hide_from_other_processes(False)  # the launcher measures its memory
            adopt_orphans()
            if self._on_child is not None:  # None: a handler that was not set by Python
                signal.signal(signal.SIGCHLD, self._on_child)
            self._close_descriptors_of_parent()
            self._run_child(sock, request)
        sock.close()
        try:
            self._children[child] = os.pidfd_open(child)
        except (OSError, AttributeError):
            self._children[child] = None
        self._channel.send(Forked(request.number, child))

    def _close_descriptors_of_parent(self) -> None:
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
            except ChildProcessError:  # a thread of the bot has reaped it
                exited = Exited(child, 0)
            del self._children[child]
            if pidfd is not None:
                os.close(pidfd)
            self._ends_orphans = True
            self._channel.send(exited)

    def _end_orphans(self) -> None:
        """Kill and reap what workers left behind, in any process group, until nothing is found."""
        if not self._ends_orphans:
            return
        own_pid, group, known = os.getpid(), os.getpgrp(), list_processes()
        kept = self._inherited | set(self._children)
        # A child of the import may have forked, too: into our process group.
        orphans = {p for p, r in known.items() if r.parent == own_pid and p not in kept and r.group != group}
        self._ends_orphans = bool(orphans)
        ending = descendants(orphans, known)
        # A bot can move a child into a group of others.
        shared = {entry.group for pid, entry in known.items() if pid not in ending}
        for orphan in orphans:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if known[orphan].group in shared:
                    os.kill(orphan, signal.SIGKILL)
                else:  # all at once: each may be forking the next
                    os.killpg(known[orphan].group, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(orphan, os.WNOHANG)


def exit_process(status: int) -> NoReturn:
    flush_streams()
    os._exit(status)


def forget_exit_handlers() -> None:
    """Drop exit handlers in a forked process: they belong to its parent."""
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
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def leave_signals_to_launcher() -> None:
    """Ignore signals to the process group with handlers: programs of the bot would inherit SIG_IGN."""
    for number in (signal.SIGTERM, signal.SIGINT):
        found = signal.getsignal(number)
        if not isinstance(found, _IgnoreSignal) or found.process != os.getpid():
            signal.signal(number, _IgnoreSignal())


class _IgnoreSignal:
    """Ignores a signal, except in a process that the bot has forked."""

    def __init__(self) -> None:
        self.process = os.getpid()

    def __call__(self, number: int, frame: object) -> None:
        if os.getpid() != self.process:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def how_it_ended(exited: Exited | None) -> str:
    """Return "was killed by SIGSEGV", "ended with exit status 1" or, if unknown, "ended"."""
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
