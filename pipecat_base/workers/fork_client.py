"""The launcher's side of the nursery, and of the templates that it makes: processes, and the news of their ends."""

from __future__ import annotations

import asyncio
import itertools
import os
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from pipecat_base.config import environment
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
from pipecat_base.workers.ipc.messages import BotImported, Exited, Made, Make, Message, NotMade, NotServing


class ForkFailed(Exception):
    """The system would not give a process."""


@dataclass
class ForkedProcess:
    """A process that was made, and the channel to it."""

    pid: int
    channel: Channel
    exited: asyncio.Future[Exited | None] = field(repr=False)
    """How it has ended; None when whoever made it is gone too."""


class ForkRequester:
    """Asks for processes over one channel: the nursery's, or a template's."""

    def __init__(self, channel: Channel, *, on_other: Callable[[Message], None] | None = None) -> None:
        self._channel = channel
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[int]] = {}
        self._children: dict[int, asyncio.Future[Exited | None]] = {}
        self._early: dict[int, Exited] = {}
        self._unclaimed: set[int] = set()
        self._on_other = on_other
        self.gone = asyncio.Event()

    def attach(self) -> None:
        """Begin to read, on the running loop."""
        self._channel.attach(asyncio.get_running_loop(), self._on_message, self._on_end)

    def send(self, message: Message) -> None:
        """Tell it something else."""
        self._channel.send(message)

    async def make(self, *, alone: bool = False, variables: Mapping[str, str] | None = None) -> ForkedProcess:
        """One more process.

        Raises:
            NoProcess: there is none to be had.
        """
        if self.gone.is_set():
            raise ForkFailed("what makes them has ended")
        ours, theirs = Channel.pair()
        number = next(self._numbers)
        asked = self._asked[number] = asyncio.get_running_loop().create_future()
        with theirs:
            self._channel.send(Make(number, alone, None if variables is None else dict(variables)), [theirs.fileno()])
        try:
            pid = await asked
        except BaseException:
            ours.close()
            raise
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        if pid in self._early:
            exited.set_result(self._early.pop(pid))
        elif self.gone.is_set():
            exited.set_result(None)
        else:
            self._children[pid] = exited
        return ForkedProcess(pid, ours, exited)

    def close(self) -> None:
        """Let it end, and with it all that it has made."""
        self._channel.close()
        self._on_end()

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Made | NotMade):
            asked = self._asked.pop(message.number, None)
            if asked is None or asked.done():  # the first template, or somebody who no longer waits
                if isinstance(message, Made):
                    self._unclaimed.add(message.pid)
                return
            if isinstance(message, Made):
                asked.set_result(message.pid)
            else:
                asked.set_exception(ForkFailed(message.reason))
        elif isinstance(message, Exited):
            exited = self._children.pop(message.pid, None)
            if message.pid in self._unclaimed:
                self._unclaimed.discard(message.pid)
            elif exited is None:
                self._early[message.pid] = message
            elif not exited.done():
                exited.set_result(message)
        elif self._on_other is not None:
            self._on_other(message)

    def _on_end(self) -> None:
        self.gone.set()
        for exited in self._children.values():
            if not exited.done():
                exited.set_result(None)
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(ForkFailed("what makes them has ended"))
        self._children.clear()
        self._asked.clear()


class ForkClient:
    """Forked from the launcher before it has a thread.

    Args:
        grow: Called in each child; does not return.
        forget: Called first: takes secrets out of what a bot in a fork of this process could look up.
    """

    def __init__(self, grow: Callable[[socket.socket, Make], NoReturn], forget: Callable[[], None]) -> None:
        ours, theirs = Channel.pair()
        parent = os.getpid()
        flush_streams()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()  # Ctrl-C is for the launcher
            die_with(parent)
            leave_signals_to_launcher()
            ours.close()
            environment.scrub(SECRETS)
            forget()
            environment.hide_from_other_processes()  # copies may be left in what was freed
            forget_exit_handlers()
            ForkServer(Channel(theirs), grow).run()
        theirs.close()
        self.channel = ours
        self._number = 0

    def import_bot(self, variables: Mapping[str, str] | None = None) -> Callable[[], TemplateClient]:
        """Have the first template made, without a loop: the watchdog stands in meanwhile. Returned is the wait for it.

        The wait raises StartupError where the bot cannot be served. ``variables`` is the environment, where it has
        changed.
        """
        ours, theirs = Channel.pair()
        with theirs:
            self._number -= 1  # those of what is made on a loop count upwards
            self.channel.send(
                Make(self._number, variables=None if variables is None else dict(variables)), [theirs.fileno()]
            )
        self.channel.flush(1.0)
        number = self._number
        return lambda: self._wait(ours, number)

    def _wait(self, ours: Channel, number: int) -> TemplateClient:
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        exited: Exited | None = None
        pid: int | None = None
        while True:
            said = _said(ours)
            if isinstance(said, BotImported):
                return TemplateClient(said, ours)
            if isinstance(said, NotServing):
                raise said.error()
            if exited is not None or self.channel.ended:  # and it has said nothing
                break
            # Not its channel alone: what the bot has started while it was imported may hold that open.
            poll.poll()
            while (news := _said(self.channel)) is not None:
                pid = news.pid if isinstance(news, Made) and news.number == number else pid
                exited = news if isinstance(news, Exited) and news.pid == pid else exited
        how = how_it_ended(exited)
        raise BotExited(f"The process that imports the bot {how}.", "Find out what ends it while it is imported.")


def _said(channel: Channel) -> Message | None:
    """What has come, without waiting."""
    try:
        received = channel.receive(0)
    except TimeoutError:
        return None
    return None if received is None else received[0]


@dataclass
class TemplateClient:
    """A process that has imported the bot, and forks."""

    imported: BotImported
    channel: Channel
