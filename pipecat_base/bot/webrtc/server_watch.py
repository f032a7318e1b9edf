"""STUN and TURN servers that answer: every offer would wait for a silent server.

Each server is probed when it is first seen. While it answers, a call has it probed again; while it does not, time does.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from functools import partial

from pipecat.transports.smallwebrtc.connection import IceServer

from pipecat_base.bot.daemon_thread import in_daemon_thread
from pipecat_base.bot.webrtc.probe import ProbeFailed, is_probed, probe
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import PUBLIC_STUN

PROBE_INTERVAL_SECONDS = 30.0
PROBE_TIMEOUT_SECONDS = 15.0
"""For a name server that does not answer."""

Probe = Callable[[IceServer, float], str]


class AnsweringServers:
    """Probes servers in the background; an offer waits ``timeout`` at most for the first result of each."""

    def __init__(self, timeout: float, *, probe: Probe = probe, interval: float = PROBE_INTERVAL_SECONDS) -> None:
        self._watch = partial(ServerWatch, timeout=timeout, probe=probe, interval=interval)
        self._watched: dict[str, ServerWatch] = {}

    def watch(self, servers: Sequence[IceServer]) -> None:
        wanted = {server.urls: server for server in reversed(servers) if is_probed(server)}
        for url in self._watched.keys() - wanted.keys():
            self._watched.pop(url).close()
        for url, server in wanted.items():
            if url in self._watched:
                self._watched[url].server = server  # its credentials may be newer
            else:
                self._watched[url] = self._watch(server)

    async def choose(self, servers: Sequence[IceServer], *, timeout: float) -> list[IceServer]:
        """Servers that answer, for a call."""
        self.watch(servers)
        watched = {server.urls: self._watched[server.urls] for server in servers if server.urls in self._watched}
        if unknown := {watch.settled for watch in watched.values() if not watch.settled.done()}:
            await asyncio.wait(unknown, timeout=timeout)
        for watch in watched.values():
            watch.use()
        return [server for server in servers if server.urls not in watched or watched[server.urls].answers]

    def close(self) -> None:
        self.watch([])


class ServerWatch:
    def __init__(self, server: IceServer, *, timeout: float, probe: Probe, interval: float) -> None:
        loop = asyncio.get_running_loop()
        self.server = server
        self.answers = False
        self.settled: asyncio.Future[None] = loop.create_future()  # done when offers need not wait for the first result
        self._timeout = timeout
        self._probe = probe
        self._interval = interval
        self._used = asyncio.Event()
        self._is_named = False
        loop.call_later(timeout, self._settle)
        # Without the log context of the call that began it.
        self._task = loop.create_task(self._run(), context=contextvars.Context())

    def use(self) -> None:
        self._used.set()

    def close(self) -> None:
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            self._used.clear()
            self._judge(await self._problem())
            self._settle()
            await asyncio.sleep(self._interval)
            if self.answers:
                await self._used.wait()

    async def _problem(self) -> ProbeFailed | None:
        try:
            # In a thread: a name server may hang, and the answer's time is measured while the event loop is busy.
            await asyncio.wait_for(
                in_daemon_thread(partial(self._probe, self.server, self._timeout)), PROBE_TIMEOUT_SECONDS
            )
        except ProbeFailed as problem:
            return problem
        except Exception as error:
            return ProbeFailed(f"{self.server.urls} cannot be asked: {type(error).__name__}", "Check its address.")
        return None

    def _judge(self, problem: ProbeFailed | None) -> None:
        self.answers = problem is None
        if problem is not None and not self._is_named:
            level = "INFO" if self.server.urls == PUBLIC_STUN else "WARNING"
            logger.log(level, f"{problem.text}; calls go without it until it does. {problem.fix}")
        elif problem is None and self._is_named:
            logger.info(f"{self.server.urls} answers again; calls use it")
        self._is_named = problem is not None

    def _settle(self) -> None:
        if not self.settled.done():
            self.settled.set_result(None)
