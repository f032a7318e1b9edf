"""The launcher's side of the fork server and of template processes."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from pipecat_base.config import environment, secret_copies
from pipecat_base.config.settings import LAUNCHER_SECRETS as SECRETS
from pipecat_base.errors import BotExited
from pipecat_base.logs.streams import flush_streams
from pipecat_base.workers.fork_server import (
    ForkServer,
    die_with,
    forget_exit_handlers,
    how_it_ended,
    leave_signals_to_launcher,
)
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import BotImported, Exited, Fork, Forked, Message, StartupFailed


class ForkFailed(Exception):
    pass


@dataclass
class ForkedProcess:
    pid: int
    channel: Channel
    exited: asyncio.Future[Exited | None] = field(repr=False)
    """None if its parent ended first."""


class ForkClient:
    """Requests forks from the fork server, or from a template process."""

    def __init__(self, channel: Channel, *, on_other_message: Callable[[Message], None] | None = None) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._pending: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, asyncio.Future[Exited | None]] = {}
        self._early: dict[int, Exited] = {}
        self._unclaimed: set[int] = set()
        self._on_other_message = on_other_message
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def attach(self) -> None:
        self._channel.attach(asyncio.get_running_loop(), self._on_message, self._on_end)

    def send(self, message: Message) -> None:
        self._channel.send(message)

    async def fork(self, *, standalone: bool = False, variables: Mapping[str, str] | None = None) -> ForkedProcess:
        """Fork a process; raises ForkFailed if the system refuses, or the other end has ended."""
        if self.ended.done():
            raise ForkFailed("the process that forks has ended")
        channel, child_socket = Channel.pair()
        number = next(self._numbers)
        forked = self._pending[number] = asyncio.get_running_loop().create_future()
        with child_socket:
            self._channel.send(
                Fork(number, standalone, None if variables is None else dict(variables)), [child_socket.fileno()]
            )
        try:
            pid = await forked
        except BaseException:
            channel.close()
            raise
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        if pid in self._early:
            exited.set_result(self._early.pop(pid))
        elif self.ended.done():
            exited.set_result(None)
        else:
            self._children[pid] = exited
        return ForkedProcess(pid, channel, exited)

    def close(self) -> None:
        """Everything that the other end forked ends with it."""
        self._channel.close()
        self._on_end()

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Forked):
            forked = self._pending.pop(message.number, None)
            if forked is None or forked.done():  # the first template process, or the requester no longer waits
                if message.problem is None:
                    self._unclaimed.add(message.pid)
            elif message.problem is None and message.pid > 1:
                forked.set_result(message.pid)
            else:
                forked.set_exception(ForkFailed(message.problem or "no process"))
        elif isinstance(message, Exited):
            exited = self._children.pop(message.pid, None)
            if message.pid in self._unclaimed:
                self._unclaimed.discard(message.pid)
            elif exited is None:
                self._early[message.pid] = message
            elif not exited.done():
                exited.set_result(message)
        elif self._on_other_message is not None:
            self._on_other_message(message)

    def _on_end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
        for exited in self._children.values():
            if not exited.done():
                exited.set_result(None)
        for forked in self._pending.values():
            if not forked.done():
                forked.set_exception(ForkFailed("the process that forks has ended"))
        self._children.clear()
        self._pending.clear()


class ForkServerProcess:
    """The fork server. Created before the launcher has a thread; ``forget`` removes secrets from its memory."""

    def __init__(self, run_child: Callable[[socket.socket, Fork], NoReturn], forget: Callable[[], None]) -> None:
        channel, child_socket = Channel.pair()
        parent = os.getpid()
        flush_streams()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # Ctrl-C is for the launcher
            die_with(parent)
            leave_signals_to_launcher()
            channel.close()
            with secret_copies.overwritten([environment.read().get(name, "") for name in SECRETS]):
                environment.scrub(SECRETS)
                forget()
            environment.hide_from_other_processes()  # freed memory may hold copies
            forget_exit_handlers()
            ForkServer(Channel(child_socket), run_child).run()
        child_socket.close()
        self.channel = channel
        self._number = 0

    def import_bot(self, variables: Mapping[str, str] | None = None) -> Callable[[], TemplateConnection]:
        """Start the first template process without an event loop, and return a function that waits for it."""
        channel, child_socket = Channel.pair()
        with child_socket:
            self._number -= 1  # numbers of ForkClient count upwards
            self.channel.send(
                Fork(self._number, variables=None if variables is None else dict(variables)), [child_socket.fileno()]
            )
        self.channel.flush(1.0)
        number = self._number
        return lambda: self._wait(channel, number)

    def _wait(self, channel: Channel, number: int) -> TemplateConnection:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        exited: Exited | None = None
        pid: int | None = None
        while True:
            message = _received(channel)
            if isinstance(message, BotImported):
                return TemplateConnection(message, channel)
            if isinstance(message, StartupFailed):
                raise message.error()
            if exited is not None or self.channel.ended:  # without a message
                break
            # Children that the bot started while it was imported may hold its channel open.
            poll.poll()
            while (notice := _received(self.channel)) is not None:
                pid = notice.pid if isinstance(notice, Forked) and notice.number == number and notice.pid else pid
                exited = notice if isinstance(notice, Exited) and notice.pid == pid else exited
        how = how_it_ended(exited)
        raise BotExited(f"The process that imports the bot {how}.", "Find out what ends it while it is imported.")


def _received(channel: Channel) -> Message | None:
    try:
        received = channel.receive(0)
    except TimeoutError:
        return None
    return None if received is None else received[0]


@dataclass
class TemplateConnection:
    imported: BotImported
    channel: Channel
