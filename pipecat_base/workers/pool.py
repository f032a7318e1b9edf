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
from pipecat_base.sessions.pod import BotDescription, SessionRequest
from pipecat_base.sessions.registry import Session, SessionRegistry
from pipecat_base.sessions.slots import SlotReservations
from pipecat_base.telemetry.bus import Emit
from pipecat_base.telemetry.events import LAUNCHER_EVENTS
from pipecat_base.workers import http_proxy
from pipecat_base.workers.fork_client import ForkClient, ForkRequester, TemplateClient
from pipecat_base.workers.fork_client import ForkFailed as NoProcessAtAll
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import BotImported, EventEmitted, Failed, caller_as_list
from pipecat_base.workers.lease import WorkerSlot
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.memory_limit import watch_memory
from pipecat_base.workers.process import WorkerDied, WorkerLease, WorkerProcess
from pipecat_base.workers.revision import Revision, RevisionSuperseded
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
        emit: Takes facts.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        fork_client: ForkClient,
        template: TemplateClient,
        start: str,
        limits: WorkerLimits,
        *,
        shared: bool,
        lines_of: Callable[[str], AbstractContextManager[None]],
        emit: Emit,
    ) -> None:
        self.registry = registry
        self.limits = limits
        self.lines_of = lines_of
        self.emit = emit
        self.about = _about(template.imported, self.answer)
        self._fork_client = ForkRequester(fork_client.channel)
        self._start = start
        self._shared = shared
        self._revision = Revision(self._fork_client, template, start, limits, on_fact=self._on_fact)
        self._old: set[Revision] = set()
        """Those that have calls still."""
        self._is_open = False
        self._reservations = SlotReservations(registry)
        self._leases: dict[str, WorkerLease] = {}
        self._peers: dict[str, tuple[WorkerLease, str]] = {}
        """Connections by the name that their client knows, with that which their process has given them."""
        self._numbers = itertools.count(1)
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def takes_files(self) -> bool:
        return self._revision.takes_files

    @property
    def counts(self) -> dict[str, int]:
        """Processes that run bots, by what they do. Called in any thread."""
        counts = [revision.counts for revision in (self._revision, *tuple(self._old))]
        return {state: sum(count[state] for count in counts) for state in counts[0]}

    def busy(self) -> dict[str, WorkerProcess]:
        """The workers that have a session, by its id."""
        return {session_id: lease.worker for session_id, lease in self._leases.items()}

    def outdated_sessions(self) -> list[str]:
        """Sessions that have code from before a change."""
        stints = [lease for lease in self._leases.values() if not lease.is_left]
        return [s.session_id for s in stints if any(old.has(s.worker) for old in self._old)]

    async def open(self) -> Mapping[str, Any]:
        if not self._is_open:
            self._fork_client.attach()
            self._is_open = True
            self._begin(self._watch_nursery())
            if self.limits.max_memory is not None and not self._shared:
                self._begin(watch_memory(self, self.limits.max_memory))
        await self._revision.open()
        return {}

    async def warm_up(self, *, webrtc: bool) -> None:
        if await self._revision.warm_up(webrtc=webrtc):
            await self.peers_ice_servers()

    async def ready(self) -> dict[str, Any]:
        problem = self._revision.problem
        if problem is not None:
            return {"ready": False, "state": "ready", "reason": f"The bot's processes fail: {problem}"}
        if not self._revision.imported.has_readyz:
            return {"ready": True}
        try:
            asking = self._revision.ask_lead(messages.Ready)
            verdict: dict[str, Any] = await asyncio.wait_for(asking, self.limits.readyz_timeout + EXIT_GRACE)
        except (TimeoutError, NotReached):
            return {"ready": False, "state": "ready", "reason": "The bot's lead process does not answer."}
        return verdict

    async def capability_problems(self) -> Mapping[str, str | None]:
        found: dict[str, str | None] = await self._revision.ask_lead(messages.GetCapabilities)
        return found

    def log_features(self) -> None:
        if self._revision.lead is not None:
            self._revision.lead.tell(messages.LogFeatures())

    async def close(self) -> None:
        await asyncio.gather(*(revision.close() for revision in (self._revision, *self._old)))

    def stop(self) -> None:
        self._revision.stop()
        for task in self._tasks:
            task.cancel()

    def reserve(self, request: SessionRequest) -> AbstractAsyncContextManager[WorkerSlot]:
        return self._reservations.reserve(request, lambda session: WorkerSlot(self, session))

    async def take(self, session: Session) -> WorkerLease:
        """A worker's time for a session.

        Raises:
            NoProcess: none was there in time.
        """
        since = time.monotonic()
        while True:
            revision = self._revision
            try:
                worker = await (revision.take_lead() if self._shared else revision.take(session))
                break
            except RevisionSuperseded:
                if revision is self._revision:  # nothing takes its place: the launcher ends
                    raise NoProcess("The launcher is shutting down.", session_id=session.id) from None
        lease = self._leases[session.id] = worker.take(session.id)
        self.emit("process_wait", session.id, {"wait_secs": time.monotonic() - since})
        return lease

    def give_back(self, lease: WorkerLease) -> None:
        """A session is over."""
        if self._leases.get(lease.session_id) is lease:
            del self._leases[lease.session_id]
        for pc_id in [pc_id for pc_id, (known, _) in self._peers.items() if known is lease]:
            del self._peers[pc_id]
        lease.worker.leave(lease)
        if lease.worker.died.done():
            self._revision.delete(lease.uploads)
        elif not self._shared:
            self._revision.give_back(lease.worker)
        elif lease.worker is not self._revision.lead and not lease.worker.is_busy:
            self._revision.retire(lease.worker)

    async def renew(self, variables: Mapping[str, str]) -> None:
        """Import the bot again, beside the processes that are there: they finish their calls, and take no other.

        Raises:
            StartupError: it cannot be served; all goes on as before.
        """
        template = await self._import(variables)
        revision = Revision(
            self._fork_client, template, self._start, self.limits, on_fact=self._on_fact, variables=variables
        )
        try:
            about = _about(template.imported, self.answer)
            await revision.open()
        except BaseException:
            revision.kill()
            raise
        old, self._revision = self._revision, revision
        self._old.add(old)
        self.about = about
        for line in template.imported.warnings:
            logger.warning(line)
        old.stop()
        for lease in tuple(self._leases.values()):
            lease.on_superseded()
        self._begin(self._finish(old, has_sessions=bool(self.outdated_sessions())))

    async def _finish(self, old: Revision, *, has_sessions: bool) -> None:
        await old.finish()
        self._old.discard(old)
        if has_sessions:
            logger.info(f"The last session of {old.imported.name} from before a change has ended")

    async def _import(self, variables: Mapping[str, str]) -> TemplateClient:
        try:
            child = await self._fork_client.make(variables=variables)
        except (NoProcessAtAll, OSError) as error:
            raise BotExited(f"The process that imports the bot could not be made ({error}).", "Try again.") from None
        said: asyncio.Future[messages.Message | None] = asyncio.get_running_loop().create_future()

        def emit(message: messages.Message | None) -> None:
            if not said.done():
                said.set_result(message)

        child.channel.attach(asyncio.get_running_loop(), lambda message, _: emit(message), lambda: emit(None))
        child.exited.add_done_callback(lambda _: child.channel.finish())
        try:
            message = await said
        except BaseException:  # a newer change has come
            child.channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            raise
        child.channel.detach()
        if isinstance(message, BotImported):
            return TemplateClient(message, child.channel)
        child.channel.close()
        if isinstance(message, messages.NotServing):
            raise message.error()
        await asyncio.wait({child.exited}, timeout=EXIT_GRACE)
        how = how_it_ended(child.exited.result() if child.exited.done() else None)
        raise BotExited(f"The process that imports the bot {how}.", "Find out what ends it while it is imported.")

    async def offer(self, request: SessionRequest, content: Any) -> dict[str, str]:
        named, content = self._named(content)
        lease = named or await self._stint_of(request.session_id)
        if lease is not None:
            try:
                with self.registry.keeping_slot(request.session_id):
                    return await self._offer(lease, request, content)
            except NotReached:
                if named is None:
                    raise
                raise UnknownPeer("This connection's call has ended.", field="pc_id") from None
        if isinstance(content, dict) and isinstance(content.get("pc_id"), str) and content["pc_id"]:
            raise UnknownPeer("No connection has this pc_id.", field="pc_id")
        async with self.reserve(request) as slot:
            lease = await slot.take_worker()
            offering = asyncio.ensure_future(self._offer(lease, request, content))
            await slot.answered(offering)
            answer = offering.result()
            slot.go_on()
            return answer

    async def _offer(self, lease: WorkerLease, request: SessionRequest, content: Any) -> dict[str, str]:
        lease.offers += 1
        try:
            return await self._ask_for_answer(lease, request, content)
        except BaseException:
            lease.offers -= 1
            if not lease.offers:
                lease.on_offers_over()
            raise

    async def _ask_for_answer(self, lease: WorkerLease, request: SessionRequest, content: Any) -> dict[str, str]:
        ice = await self.peers_ice_servers()
        try:
            async with in_file(content) as (shown, descriptors):
                fields = (
                    request.session_id,
                    request.max_seconds,
                    shown,
                    ice,
                    caller_as_list(request.caller),
                    bool(descriptors),
                )
                answer: dict[str, str] = await lease.worker.request(
                    messages.AnswerOffer, *fields, descriptors=descriptors
                )
        except (WorkerDied, Failed) as error:
            how = error if isinstance(error, WorkerDied) else "failed"
            raise NotReached(f"The bot's process {how}.", session_id=request.session_id) from None
        if self._leases.get(lease.session_id) is not lease:
            return answer
        return {**answer, "pc_id": self._public(lease, answer["pc_id"])}

    def _public(self, lease: WorkerLease, raw: str) -> str:
        """A connection's name for its client: its own, but where another process has one of that name."""
        known = next((public for public, peer in self._peers.items() if peer == (lease, raw)), None)
        if known is not None:
            return known
        # pipecat before 0.0.92 counts them from 0 in each process.
        public = f"{raw}-{next(self._numbers)}" if raw in self._peers else raw
        self._peers[public] = (lease, raw)
        return public

    def _named(self, content: Any) -> tuple[WorkerLease | None, Any]:
        """Whose connection a client's message names, and the message as its process knows it."""
        pc_id = content.get("pc_id") if isinstance(content, dict) else None
        found = self._peers.get(pc_id) if isinstance(pc_id, str) else None
        return (None, content) if found is None else (found[0], {**content, "pc_id": found[1]})

    async def trickle(self, content: Any) -> None:
        lease, content = self._named(content)
        try:
            if lease is not None:
                async with in_file(content) as (shown, files):
                    await lease.worker.request(messages.AddCandidates, shown, bool(files), descriptors=files)
            else:  # it says what is wrong with it
                async with in_file(content) as (shown, files):
                    await self._revision.ask_lead(messages.AddCandidates, shown, bool(files), descriptors=files)
        except (WorkerDied, Failed):
            raise UnknownPeer("This connection's call has ended.", field="pc_id") from None

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        if self.about.webrtc_problem is not None:
            return None
        found: list[dict[str, Any]] | None = await self._revision.ask_lead(messages.GetIceServers, True)
        return found

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None:
        """For a worker: the lead looks for them, once for all. None when it cannot, and each looks for itself."""
        with contextlib.suppress(Refusal, Failed, TimeoutError):
            asking = self._revision.ask_lead(messages.GetIceServers, False)
            found: list[dict[str, Any]] | None = await asyncio.wait_for(asking, ICE_TIMEOUT)
            return found
        return None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request to the bot's own app: in its session's process, or in the lead."""
        lease = await self._stint_of(session_id_in(scope["headers"]) or "")
        worker = self._revision.lead if lease is None else lease.worker
        if worker is None or worker.died.done():
            raise NotReached("The bot's lead process is being started.")
        if scope["type"] == "websocket":
            handoff = scope["extensions"][EXTENSION]
            if not handoff.is_peer_gone():
                descriptor, head, early = handoff.give(scope)
                worker.adopt(descriptor, head, early, scope["client"], "ws")
                os.close(descriptor)
            handoff.let_go()
            return
        await http_proxy.pass_on(worker.connect(scope["client"], scope["scheme"]), scope, receive, send)

    async def _stint_of(self, session_id: str) -> WorkerLease | None:
        """Of a session that is here; one that waits for its process is waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.take_timeout):
                # That a session has its process now is no change of the board's.
                while self._current(session_id) is None and self.registry.get(session_id) is not None:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK)
        return self._current(session_id)

    def _current(self, session_id: str) -> WorkerLease | None:
        lease = self._leases.get(session_id)
        return None if lease is None or lease.is_left else lease

    def _on_fact(self, noted: EventEmitted) -> None:
        if noted.name not in LAUNCHER_EVENTS:
            self.emit(noted.name, noted.session_id, noted.fields, noted.at)

    async def _watch_nursery(self) -> None:
        """Without it there are no processes any more, and all that it has made has died with it."""
        await self._fork_client.gone.wait()
        logger.critical("The process that makes the bot's processes has ended: there is nothing to go on with")
        await asyncio.sleep(LAST_WORDS)
        os._exit(EXIT_FORCED)

    def _begin(self, step: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _about(imported: BotImported, answer: ASGIApp) -> BotDescription:
    return BotDescription(
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
