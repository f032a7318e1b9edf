"""Runs each session in a worker process: the launcher's side.

A worker that crashes, hangs or blocks ends only its own session: the launcher ends that from outside.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from starlette.convertors import CONVERTOR_TYPES
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

from pipecat_base.errors import EXIT_FORCED, BotExited, NoProcess, NotReached, Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.server.error_responses import session_id_in
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import BotDescription, SessionRequest
from pipecat_base.sessions.registry import SessionRegistry, SessionState
from pipecat_base.sessions.slots import SlotReservations
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.telemetry.events import LAUNCHER_EVENTS
from pipecat_base.workers import http_proxy
from pipecat_base.workers.fork_client import ForkClient, ForkFailed, ForkServerProcess, TemplateConnection
from pipecat_base.workers.fork_server import how_it_ended
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import BotImported, EventEmitted, Serve
from pipecat_base.workers.lease import WorkerLease
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.memory_limit import watch_memory
from pipecat_base.workers.process import WorkerProcess
from pipecat_base.workers.revision import Revision
from pipecat_base.workers.websocket_handoff import EXTENSION

if TYPE_CHECKING:
    from pipecat_base.telemetry.bus import Emit

CLOSE_CALLERS_SECONDS = 1.0
ICE_LOOKUP_TIMEOUT_SECONDS = 3.0  # after that, each worker looks them up itself


class WorkerPool:
    """Runs each session in a process, or all in the control worker (``shared``)."""

    def __init__(
        self,
        registry: SessionRegistry,
        fork_server: ForkServerProcess,
        template: TemplateConnection,
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
        self.about = _describe(template.imported)
        self._fork_client = ForkClient(fork_server.channel)
        self._start = start
        self.is_shared = shared
        self._revision = Revision(self._fork_client, template, start, limits, on_event=self._on_event)
        self._old: set[Revision] = set()
        self._is_open = False
        self._reservations: SlotReservations[WorkerLease] = SlotReservations(registry)
        self._leases: dict[str, WorkerLease] = {}
        self._peers: dict[str, WorkerLease] = {}  # by the connection id that the client knows
        self._lease_taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when any session gets its worker, then replaced."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def takes_files(self) -> bool:
        return self._revision.takes_files

    @property
    def counts(self) -> dict[str, int]:
        counts = [revision.counts for revision in (self._revision, *tuple(self._old))]
        return {state: sum(count[state] for count in counts) for state in counts[0]}

    def busy(self) -> dict[str, WorkerProcess]:
        return {session_id: lease.worker for session_id, lease in self._leases.items() if lease.worker is not None}

    def outdated_sessions(self) -> list[str]:
        return [
            session.id
            for session in self.registry
            if (lease := self._leases.get(session.id)) is not None
            and not session.stop.done()
            and lease.worker is not None
            and any(old.has(lease.worker) for old in self._old)
        ]

    async def open(self) -> Mapping[str, Any]:
        if not self._is_open:
            self._fork_client.attach()
            self._is_open = True
            self._start_task(self._watch_fork_server())
            if self.limits.max_memory is not None and not self.is_shared:
                self._start_task(watch_memory(self.busy, self.limits.max_memory))
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
            async with asyncio.timeout(self.limits.readyz_timeout + EXIT_GRACE):
                verdict = await self._revision.ask("GET", "/readyz")
        except (TimeoutError, Refusal):
            verdict = None
        if isinstance(verdict, dict) and isinstance(verdict.get("ready"), bool):
            return verdict
        return {"ready": False, "state": "ready", "reason": "The bot's lead process does not answer."}

    async def capability_problems(self) -> Mapping[str, str | None] | None:
        found = await self._revision.ask("GET", "/capabilities")
        return (
            {str(name): reason and str(reason) for name, reason in found.items()} if isinstance(found, dict) else None
        )

    def log_features(self) -> None:
        self._start_task(self._log_features())

    async def _log_features(self) -> None:
        with contextlib.suppress(Refusal):
            await self._revision.ask("POST", "/features")

    async def close(self) -> None:
        await asyncio.gather(*(revision.close() for revision in (self._revision, *self._old)))

    def stop(self) -> None:
        self._revision.stop()
        for task in self._tasks:
            task.cancel()

    def reserve(self, request: SessionRequest, *, announce: bool = True) -> AbstractAsyncContextManager[WorkerLease]:
        return self._reservations.reserve(request, lambda session: WorkerLease(self, session), announce=announce)

    async def begin(self, request: SessionRequest) -> WorkerLease:
        """Admit a session for a request that a worker will answer; the slot is held until the session is over."""
        async with self.reserve(request, announce=False) as lease:
            lease.keep()
        return lease

    def take_over(self, session_id: str) -> WorkerLease | None:
        return self._reservations.take_over(session_id)

    async def take(self, lease: WorkerLease) -> WorkerProcess:
        since = time.monotonic()
        worker = await self._take_worker(lease)
        lease.waited = time.monotonic() - since
        self._leases[lease.session.id] = lease
        self._lease_taken.set_result(None)
        self._lease_taken = asyncio.get_running_loop().create_future()
        return worker

    async def _take_worker(self, lease: WorkerLease) -> WorkerProcess:
        revision = self._revision
        try:
            return await (revision.take_control_worker(lease) if self.is_shared else revision.take(lease))
        except NoProcess:
            if revision is self._revision:
                raise
            return await self._take_worker(lease)  # newer code was loaded meanwhile

    def give_back(self, lease: WorkerLease, worker: WorkerProcess) -> None:
        if self._leases.get(lease.session.id) is lease:
            del self._leases[lease.session.id]
        for pc_id in [pc_id for pc_id, known in self._peers.items() if known is lease]:
            del self._peers[pc_id]
        worker.remove(lease.session.id, lease)
        if worker.died.done():
            self._revision.delete(lease.uploads)
        elif not self.is_shared:
            self._revision.give_back(worker)
        elif worker is not self._revision.control_worker and not worker.calls:
            self._revision.retire(worker)

    def note_peer(self, lease: WorkerLease, pc_id: str) -> None:
        if self._leases.get(lease.session.id) is lease:
            self._peers.setdefault(pc_id, lease)

    async def renew(self, variables: Mapping[str, str]) -> None:
        """Import the bot again, in a new revision; running calls end in the old one. Raises StartupError."""
        template = await self._import(variables)
        revision = Revision(
            self._fork_client, template, self._start, self.limits, on_event=self._on_event, variables=variables
        )
        try:
            about = _describe(template.imported)
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
        self._end_waiting()
        self._start_task(self._finish_revision(old, has_sessions=bool(self.outdated_sessions())))

    def _end_waiting(self) -> None:
        """End sessions that have old code and no caller yet: a new start gets the new code."""
        for lease in tuple(self._leases.values()):
            session = self.registry.get(lease.session.id)
            if session is None or session.transport is not TransportKind.WEBRTC or lease.offers:
                continue
            if session.state in (SessionState.ADMITTED, SessionState.WAITING):
                logger.info(f"Session {session.id} ends: the code changed before its caller connected")
                self.registry.cancel(session.id, Outcome.DRAINED)

    async def _finish_revision(self, old: Revision, *, has_sessions: bool) -> None:
        await old.finish()
        self._old.discard(old)
        if has_sessions:
            logger.info(f"The last session of {old.imported.name} that ran the old code has ended")

    async def _import(self, variables: Mapping[str, str]) -> TemplateConnection:
        try:
            child = await self._fork_client.fork(variables=variables)
        except (ForkFailed, OSError) as error:
            raise BotExited(f"The process that imports the bot could not be made ({error}).", "Try again.") from None
        first: asyncio.Future[messages.Message | None] = asyncio.get_running_loop().create_future()

        def receive(message: messages.Message | None) -> None:
            if not first.done():
                first.set_result(message)

        child.channel.attach(asyncio.get_running_loop(), lambda message, _: receive(message), lambda: receive(None))
        child.exited.add_done_callback(lambda _: child.channel.finish())
        try:
            message = await first
        except BaseException:  # cancelled by a newer change
            child.channel.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
            raise
        child.channel.detach()
        if isinstance(message, BotImported):
            return TemplateConnection(message, child.channel)
        child.channel.close()
        if isinstance(message, messages.StartupFailed):
            raise message.error()
        await asyncio.wait({child.exited}, timeout=EXIT_GRACE)
        how = how_it_ended(child.exited.result() if child.exited.done() else None)
        raise BotExited(f"The process that imports the bot {how}.", "Find out what ends it while it is imported.")

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        if self.about.webrtc_problem is not None:
            return None
        return _listed(await self._revision.ask("GET", "/ice-servers"))

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None:
        with contextlib.suppress(Refusal, OSError):
            async with asyncio.timeout(ICE_LOOKUP_TIMEOUT_SECONDS):
                return _listed(await self._revision.ask("GET", "/ice-servers/answering"))
        return None

    def lease_of_peer(self, pc_id: str) -> WorkerLease | None:
        return self._peers.get(pc_id)

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, lease: WorkerLease | None = None, *, ice: Any = None
    ) -> None:
        """Forward a request that begins no session to its session's worker, or to the control worker."""
        lease = lease or await self.lease_of(session_id_in(scope["headers"]) or "")
        worker = self._revision.control_worker if lease is None else lease.worker
        if worker is None or worker.died.done():
            raise NotReached("The bot's lead process is being started.")
        request = Serve.of(scope, ice=ice)
        if scope["type"] == "websocket":
            handoff = scope["extensions"][EXTENSION]
            if not handoff.has_disconnected():
                handoff.give_to(worker.serve, request, scope)
            handoff.abandon()
            return
        await http_proxy.forward(worker.connect(request), scope, receive, send)

    async def lease_of(self, session_id: str) -> WorkerLease | None:
        """Return the lease of an active session; wait if it has none yet."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.take_timeout):
                while session_id not in self._leases and self.registry.get(session_id) is not None:
                    changed = asyncio.ensure_future(self.registry.changed())
                    try:
                        await asyncio.wait({self._lease_taken, changed}, return_when=asyncio.FIRST_COMPLETED)
                    finally:
                        changed.cancel()
        return self._leases.get(session_id)

    def _on_event(self, noted: EventEmitted) -> None:
        if noted.name not in LAUNCHER_EVENTS:
            self.emit(noted.name, noted.session_id, noted.fields, noted.at)

    async def _watch_fork_server(self) -> None:
        """Exit when the fork server ends: every process it forked dies with it."""
        await asyncio.wait({self._fork_client.ended})
        logger.critical("The fork server ended unexpectedly; the launcher exits")
        await asyncio.sleep(CLOSE_CALLERS_SECONDS)
        os._exit(EXIT_FORCED)

    def _start_task(self, step: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _listed(answer: Any) -> list[dict[str, Any]] | None:
    return [item for item in answer if isinstance(item, dict)] if isinstance(answer, list) else None


def _describe(imported: BotImported) -> BotDescription:
    return BotDescription(
        name=imported.name,
        file=imported.file,
        webrtc_problem=imported.webrtc_problem,
        has_file_storage=imported.has_file_storage,
        has_app=imported.has_app,
        routes=[_route(*listed) for listed in imported.routes],
    )


def _route(path: str, methods: list[str] | None, name: str) -> BaseRoute:
    """Match like a route of the bot's own; a worker serves it."""
    # Convertors of the bot's own exist only in workers; without them the path matches more.
    path = re.sub(r":(\w+)}", lambda found: found[0] if found[1] in CONVERTOR_TYPES else "}", path)
    if methods is None:
        return WebSocketRoute(path, _elsewhere, name=name)
    if methods == ["*"]:
        return Mount(path, app=_elsewhere, name=name)
    return Route(path, _elsewhere, methods=methods, name=name)


async def _elsewhere(*_: Any) -> None:
    raise NotImplementedError  # only matched
