"""A process for each call: the launcher's side.

The pool finds a worker for each session, by the session's id and by the names of its WebRTC connections, and passes on
what is asked. What a worker does to itself, or does not do, ends one session: it is told from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any

from starlette.convertors import CONVERTOR_TYPES
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.errors import EXIT_FORCED, BotExited, NoProcess, NotReached, Refusal, UnknownPeer
from pipecat_base.logs.logger import logger
from pipecat_base.server.error_responses import session_id_in
from pipecat_base.server.large_json import in_file
from pipecat_base.sessions.pod import About, Ask
from pipecat_base.sessions.registry import Board, Session
from pipecat_base.sessions.slots import Reservations
from pipecat_base.telemetry.bus import Note
from pipecat_base.telemetry.events import OF_THE_LAUNCHER
from pipecat_base.workers import http_proxy
from pipecat_base.workers.fork_client import Maker, Nursery, Template
from pipecat_base.workers.fork_client import NoProcess as NoProcessAtAll
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import Failed, Imported, Noted, caller_as_list
from pipecat_base.workers.lease import WorkerPlace
from pipecat_base.workers.limits import EXIT_GRACE, Limits
from pipecat_base.workers.memory_limit import watch_memory
from pipecat_base.workers.process import Died, Stint, Worker
from pipecat_base.workers.revision import Generation, Superseded
from pipecat_base.workers.websocket_handoff import EXTENSION

LOOK = 0.05
"""Seconds between looks at whether a session has its process."""
LAST_WORDS = 1.0
"""Seconds for callers to be told that their sessions have died."""
ICE_TIMEOUT = 3.0
"""Seconds for the lead to say which ICE servers there are; a worker looks for itself then."""


class WorkerPool:
    """Runs each session in a process.

    Args:
        start: PIPECAT_PROCESS_START.
        shared: Whether the lead takes every session, as one process for all.
        lines_of: Entered while a session runs, for what it prints.
        note: Takes facts.
    """

    def __init__(
        self,
        board: Board,
        nursery: Nursery,
        template: Template,
        start: str,
        limits: Limits,
        *,
        shared: bool,
        lines_of: Callable[[str], AbstractContextManager[None]],
        note: Note,
    ) -> None:
        self.board = board
        self.limits = limits
        self.lines_of = lines_of
        self.note = note
        self.about = _about(template.imported, self.answer)
        self._nursery = Maker(nursery.channel)
        self._start = start
        self._shared = shared
        self._generation = Generation(self._nursery, template, start, limits, on_fact=self._on_fact)
        self._old: set[Generation] = set()
        """Those that have calls still."""
        self._is_open = False
        self._reservations = Reservations(board)
        self._stints: dict[str, Stint] = {}
        self._peers: dict[str, tuple[Stint, str]] = {}
        """Connections by the name that their client knows, with that which their process has given them."""
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def takes_files(self) -> bool:
        return self._generation.takes_files

    @property
    def counts(self) -> dict[str, int]:
        """Processes that run bots, by what they do. Called in any thread."""
        counts = [generation.counts for generation in (self._generation, *tuple(self._old))]
        return {state: sum(count[state] for count in counts) for state in counts[0]}

    def busy(self) -> dict[str, Worker]:
        """The workers that have a session, by its id."""
        return {session_id: stint.worker for session_id, stint in self._stints.items()}

    def outdated(self) -> list[str]:
        """Sessions that have code from before a change."""
        stints = [stint for stint in self._stints.values() if not stint.is_left]
        return [s.session_id for s in stints if any(old.has(s.worker) for old in self._old)]

    async def open(self) -> Mapping[str, Any]:
        if not self._is_open:
            self._nursery.attach()
            self._is_open = True
            self._begin(self._watch_nursery())
            if self.limits.max_memory is not None and not self._shared:
                self._begin(watch_memory(self, self.limits.max_memory))
        await self._generation.open()
        return {}

    async def warm_up(self, *, webrtc: bool) -> None:
        if await self._generation.warm_up(webrtc=webrtc):
            await self.peers_ice_servers()

    async def ready(self) -> dict[str, Any]:
        problem = self._generation.problem
        if problem is not None:
            return {"ready": False, "state": "ready", "reason": f"The bot's processes fail: {problem}"}
        if not self._generation.imported.has_readyz:
            return {"ready": True}
        try:
            asking = self._generation.ask_lead(messages.Ready)
            verdict: dict[str, Any] = await asyncio.wait_for(asking, self.limits.readyz_timeout + EXIT_GRACE)
        except (TimeoutError, NotReached):
            return {"ready": False, "state": "ready", "reason": "The bot's lead process does not answer."}
        return verdict

    async def why_nots(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = await self._generation.ask_lead(messages.Capabilities)
        return found

    def log_features(self) -> None:
        if self._generation.lead is not None:
            self._generation.lead.tell(messages.LogFeatures())

    async def close(self) -> None:
        await asyncio.gather(*(generation.close() for generation in (self._generation, *self._old)))

    def stop(self) -> None:
        self._generation.stop()
        for task in self._tasks:
            task.cancel()

    def reserve(self, ask: Ask) -> AbstractAsyncContextManager[WorkerPlace]:
        return self._reservations.reserve(ask, lambda session: WorkerPlace(self, session))

    async def take(self, session: Session) -> Stint:
        """A worker's time for a session.

        Raises:
            NoProcess: none was there in time.
        """
        since = time.monotonic()
        while True:
            generation = self._generation
            try:
                worker = await (generation.take_lead() if self._shared else generation.take(session))
                break
            except Superseded:
                if generation is self._generation:  # nothing takes its place: the launcher ends
                    raise NoProcess("The launcher is shutting down.", session_id=session.id) from None
        stint = self._stints[session.id] = worker.take(session.id)
        self.note("process_wait", session.id, {"wait_secs": time.monotonic() - since})
        return stint

    def give_back(self, stint: Stint) -> None:
        """A session is over."""
        if self._stints.get(stint.session_id) is stint:
            del self._stints[stint.session_id]
        for pc_id in [pc_id for pc_id, (known, _) in self._peers.items() if known is stint]:
            del self._peers[pc_id]
        stint.worker.leave(stint)
        if stint.worker.died.done():
            self._generation.delete(stint.uploads)
        elif not self._shared:
            self._generation.give_back(stint.worker)
        elif stint.worker is not self._generation.lead and not stint.worker.is_busy:
            self._generation.retire(stint.worker)

    async def renew(self, variables: Mapping[str, str]) -> None:
        """Import the bot again, beside the processes that are there: they finish their calls, and take no other.

        Raises:
            StartupError: it cannot be served; all goes on as before.
        """
        template = await self._import(variables)
        generation = Generation(
            self._nursery, template, self._start, self.limits, on_fact=self._on_fact, variables=variables
        )
        try:
            about = _about(template.imported, self.answer)
            await generation.open()
        except BaseException:
            generation.kill()
            raise
        old, self._generation = self._generation, generation
        self._old.add(old)
        self.about = about
        for line in template.imported.warnings:
            logger.warning(line)
        old.stop()
        for stint in tuple(self._stints.values()):
            stint.on_superseded()
        self._begin(self._finish(old, has_sessions=bool(self.outdated())))

    async def _finish(self, old: Generation, *, has_sessions: bool) -> None:
        await old.finish()
        self._old.discard(old)
        if has_sessions:
            logger.info(f"The last session of {old.imported.name} from before a change has ended")

    async def _import(self, variables: Mapping[str, str]) -> Template:
        try:
            child = await self._nursery.make(variables=variables)
        except (NoProcessAtAll, OSError) as error:
            raise BotExited(f"The process that imports the bot could not be made ({error}).", "Try again.") from None
        said: asyncio.Future[messages.Message | None] = asyncio.get_running_loop().create_future()

        def note(message: messages.Message | None) -> None:
            if not said.done():
                said.set_result(message)

        child.channel.attach(asyncio.get_running_loop(), lambda message, _: note(message), lambda: note(None))
        child.exited.add_done_callback(lambda _: child.channel.finish())
        try:
            message = await said
        except BaseException:  # a newer change has come
            child.channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            raise
        child.channel.detach()
        if isinstance(message, Imported):
            return Template(message, child.channel)
        child.channel.close()
        if isinstance(message, messages.NotServed):
            raise message.error()
        await asyncio.wait({child.exited}, timeout=EXIT_GRACE)
        how = how_it_ended(child.exited.result() if child.exited.done() else None)
        raise BotExited(f"The process that imports the bot {how}.", "Find out what ends it while it is imported.")

    async def offer(self, ask: Ask, content: Any) -> dict[str, str]:
        named, content = self._named(content)
        stint = named or await self._stint_of(ask.session_id)
        if stint is not None:
            try:
                with self.board.keeping_place(ask.session_id):
                    return await self._offer(stint, ask, content)
            except NotReached:
                if named is None:
                    raise
                raise UnknownPeer("This connection's call has ended.", field="pc_id") from None
        if isinstance(content, dict) and isinstance(content.get("pc_id"), str) and content["pc_id"]:
            raise UnknownPeer("No connection has this pc_id.", field="pc_id")
        async with self.reserve(ask) as place:
            stint = await place.take_worker()
            offering = asyncio.ensure_future(self._offer(stint, ask, content))
            await place.answered(offering)
            answer = offering.result()
            place.go_on()
            return answer

    async def _offer(self, stint: Stint, ask: Ask, content: Any) -> dict[str, str]:
        stint.offers += 1
        try:
            return await self._ask_for_answer(stint, ask, content)
        except BaseException:
            stint.offers -= 1
            if not stint.offers:
                stint.on_offers_over()
            raise

    async def _ask_for_answer(self, stint: Stint, ask: Ask, content: Any) -> dict[str, str]:
        ice = await self.peers_ice_servers()
        try:
            async with in_file(content) as (shown, descriptors):
                fields = (ask.session_id, ask.max_seconds, shown, ice, caller_as_list(ask.caller), bool(descriptors))
                answer: dict[str, str] = await stint.worker.ask(messages.Offer, *fields, descriptors=descriptors)
        except (Died, Failed) as error:
            how = error if isinstance(error, Died) else "failed"
            raise NotReached(f"The bot's process {how}.", session_id=ask.session_id) from None
        if self._stints.get(stint.session_id) is not stint:
            return answer
        return {**answer, "pc_id": self._public(stint, answer["pc_id"])}

    def _public(self, stint: Stint, raw: str) -> str:
        """A connection's name for its client: its own, but where another process has one of that name."""
        known = next((public for public, peer in self._peers.items() if peer == (stint, raw)), None)
        if known is not None:
            return known
        # pipecat before 0.0.92 counts them from 0 in each process.
        public = f"{raw}-{next(self._numbers)}" if raw in self._peers else raw
        self._peers[public] = (stint, raw)
        return public

    def _named(self, content: Any) -> tuple[Stint | None, Any]:
        """Whose connection a client's message names, and the message as its process knows it."""
        pc_id = content.get("pc_id") if isinstance(content, dict) else None
        found = self._peers.get(pc_id) if isinstance(pc_id, str) else None
        return (None, content) if found is None else (found[0], {**content, "pc_id": found[1]})

    async def trickle(self, content: Any) -> None:
        stint, content = self._named(content)
        try:
            if stint is not None:
                async with in_file(content) as (shown, files):
                    await stint.worker.ask(messages.Trickle, shown, bool(files), descriptors=files)
            else:  # it says what is wrong with it
                async with in_file(content) as (shown, files):
                    await self._generation.ask_lead(messages.Trickle, shown, bool(files), descriptors=files)
        except (Died, Failed):
            raise UnknownPeer("This connection's call has ended.", field="pc_id") from None

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        if self.about.webrtc_problem is not None:
            return None
        found: list[dict[str, Any]] | None = await self._generation.ask_lead(messages.IceServers, True)
        return found

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None:
        """For a worker: the lead looks for them, once for all. None when it cannot, and each looks for itself."""
        with contextlib.suppress(Refusal, Failed, TimeoutError):
            asking = self._generation.ask_lead(messages.IceServers, False)
            found: list[dict[str, Any]] | None = await asyncio.wait_for(asking, ICE_TIMEOUT)
            return found
        return None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request to the bot's own app: in its session's process, or in the lead."""
        stint = await self._stint_of(session_id_in(scope["headers"]) or "")
        worker = self._generation.lead if stint is None else stint.worker
        if worker is None or worker.died.done():
            raise NotReached("The bot's lead process is being started.")
        if scope["type"] == "websocket":
            handover = scope["extensions"][EXTENSION]
            if not handover.is_peer_gone():
                descriptor, head, early = handover.give(scope)
                worker.adopt(descriptor, head, early, scope["client"], "ws")
                os.close(descriptor)
            handover.let_go()
            return
        await http_proxy.pass_on(worker.connect(scope["client"], scope["scheme"]), scope, receive, send)

    async def _stint_of(self, session_id: str) -> Stint | None:
        """Of a session that is here; one that waits for its process is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.take_timeout):
                # That a session has its process now is no change of the board's.
                while self._current(session_id) is None and self.board.get(session_id) is not None:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK)
        return self._current(session_id)

    def _current(self, session_id: str) -> Stint | None:
        stint = self._stints.get(session_id)
        return None if stint is None or stint.is_left else stint

    def _on_fact(self, noted: Noted) -> None:
        if noted.name not in OF_THE_LAUNCHER:
            self.note(noted.name, noted.session_id, noted.fields, noted.at)

    async def _watch_nursery(self) -> None:
        """Without it there are no processes any more, and all that it has made has died with it."""
        await self._nursery.gone.wait()
        logger.critical("The process that makes the bot's processes has ended: there is nothing to go on with")
        await asyncio.sleep(LAST_WORDS)
        os._exit(EXIT_FORCED)

    def _begin(self, step: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _about(imported: Imported, answer: ASGIApp) -> About:
    return About(
        name=imported.name,
        file=imported.file,
        webrtc_problem=imported.webrtc_problem,
        has_file_storage=imported.has_file_storage,
        has_app=imported.has_app,
        routes=[_route(answer, *listed) for listed in imported.routes],
    )


def _route(answer: ASGIApp, path: str, methods: list[str] | None, name: str) -> BaseRoute:
    """One that matches what the bot's own does, and is answered there."""
    there = _There(answer)
    # Convertors of the bot's own are known there alone: here they match more.
    path = re.sub(r":(\w+)}", lambda found: found[0] if found[1] in CONVERTOR_TYPES else "}", path)
    if methods is None:
        return WebSocketRoute(path, there, name=name)
    if methods == ["*"]:
        return Mount(path, app=answer, name=name)
    return Route(path, there, methods=methods, name=name)


class _There:
    """An endpoint that is an application, as Starlette tells them apart."""

    def __init__(self, answer: ASGIApp) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._answer(scope, receive, send)
