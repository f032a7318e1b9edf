"""A place whose bot runs in a worker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipecat_base.errors import NoProcess, NotReached
from pipecat_base.logs.logger import logger
from pipecat_base.server.large_json import in_file
from pipecat_base.sessions.outcome import CLOSE_CODES, MESSAGES, Outcome, Report
from pipecat_base.sessions.registry import Session, SessionRegistry, SessionState
from pipecat_base.sessions.slots import HeldSlot
from pipecat_base.sessions.transports import MoqServer, PendingWebRTC, Transport, WebSocketTransport, WhatsAppCall
from pipecat_base.telemetry.bus import Emit
from pipecat_base.workers import websocket_handoff
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import Cancel, Ended, Failed, caller_as_list, transport_as_dict
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.process import WorkerDied, WorkerLease, WorkerProcess
from pipecat_base.workers.websocket_handoff import WebSocketHandoff

LOOK = 1.0
"""Seconds between looks at whether a WebSocket's peer is there."""
BLOCKED = 5.0
"""Seconds without an answer after which a loop counts as blocked for good, where nobody is there to hear it."""


MAX_PROCESSES = 3
"""For one call, of which all but the last die before it has begun there."""


class NeverBegan(Exception):
    """A process has died before a session has begun in it."""


class RevisionOutdated(NeverBegan):
    """The session only waits for its peer: it may as well wait in newer code."""


class WorkerSource(Protocol):
    """The pool, as its places see it.

    Attributes:
        lines_of: Entered while a session runs, with its id, for what it prints.
        emit: Takes facts.
    """

    registry: SessionRegistry
    limits: WorkerLimits
    lines_of: Callable[[str], AbstractContextManager[None]]
    emit: Emit

    async def take(self, session: Session) -> WorkerLease:
        """A worker's time for a session."""

    def give_back(self, lease: WorkerLease) -> None:
        """That session is over."""

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None:
        """What peers of a worker should use, if that is known."""


class WorkerSlot(HeldSlot):
    """A place; a worker is taken for it when there is something to be done."""

    def __init__(self, pool: WorkerSource, session: Session) -> None:
        super().__init__(pool.registry, session)
        self._pool = pool
        self._lease: WorkerLease | None = None
        self._began_at: float | None = None
        self._overdue: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._peer_gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_orderly = True
        """Whether what runs the session has come to its own end, a WebSocket's close included."""
        self._timer: asyncio.TimerHandle | None = None
        self._tried = 0
        self._waits_for_offer = False
        self._is_superseded = False
        """Whether there is newer code than that which the session has."""
        self._moves: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the session is to go to that."""
        self._has_entered = False
        """Whether the session has begun in a process."""
        self._was_accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.add_last_closer(self._give_back)

    async def take_worker(self) -> WorkerLease:
        """The worker of this place, and its time for it.

        Raises:
            NoProcess: none was there in time.
        """
        if self._lease is None:
            self._lease = await self._pool.take(self.session)
            self._lease.on_entered = self._enter
            self._lease.on_superseded = self._note_superseded
            self._lease.on_offers_over = self._move_if_possible
            self._moves = asyncio.get_running_loop().create_future()
        return self._lease

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        while True:
            try:
                return await self._try_to_run(transport, body, flow_config)
            except NeverBegan:  # its process had died while it waited for a call, or is out of date
                assert self._lease is not None
                self._pool.give_back(self._lease)
                self._lease = None
                self._is_superseded = self._has_entered = False
                if self._disconnected.done():
                    self._registry.cancel(self.session.id, Outcome.DISCONNECTED)
                if isinstance(transport, PendingWebRTC):
                    transport = PendingWebRTC(waited=self.session.age)

    async def _try_to_run(self, transport: Transport, body: Any, flow_config: str | None) -> Report:
        try:
            lease = await self.take_worker()
        except NoProcess:
            if not self.session.stop.done():
                raise
            outcome = self.session.stop.result()
            return self._ended(Report(outcome, MESSAGES[outcome], 0.0))
        worker = lease.worker
        self._waits_for_offer = isinstance(transport, PendingWebRTC)
        if isinstance(transport, MoqServer):
            lease.on_serving = transport.on_serving
        session = self.session
        fields = (session.id, session.transport.value, session.max_seconds, transport_as_dict(transport))
        if isinstance(transport, WebSocketTransport):
            return await self._run_stream(worker, transport, fields, body, flow_config)
        return await self._run(worker, await self._ask_to_run(worker, fields, body, flow_config))

    async def _ask_to_run(
        self,
        worker: WorkerProcess,
        fields: tuple[Any, ...],
        body: Any,
        flow_config: str | None,
        stream: tuple[bytes, bytes] = (b"", b""),
        descriptors: Sequence[int] = (),
    ) -> asyncio.Future[Any]:
        """The worker's reply. The request is on its way, with duplicates of the descriptors."""
        async with in_file(body) as (shown, files):
            rest = (shown, flow_config, caller_as_list(self.session.caller), *stream, bool(files))
            asking = worker.request(messages.Run, *fields, *rest, descriptors=[*descriptors, *files])
            replying = asyncio.ensure_future(asking)
            await asyncio.sleep(0)
        return replying

    async def _run(self, worker: WorkerProcess, asking: Any) -> Report:
        running = asyncio.ensure_future(asking)
        with self._pool.lines_of(self.session.id):
            await self.answered(running)
        if running.cancelled():
            return self._given_up()
        try:
            outcome, message, seconds = _result_of_run(running.result())
        except WorkerDied:
            self._tried += 1
            if not self._has_entered and self.session.outcome is None and self._tried < MAX_PROCESSES:
                raise NeverBegan from None
            return self._died(worker)
        except Failed as error:
            return self._ended(await self._report_of(worker, error))
        assert self._lease is not None
        ended = self._lease.ended  # that is told first
        bot_error = ended.result().report().bot_error if ended.done() else None
        return self._ended(Report(outcome, message, seconds, bot_error))

    async def _report_of(self, worker: WorkerProcess, error: Failed) -> Report:
        """Of a run that was not replied to in order: that of its process, if the session has ended there."""
        assert self._lease is not None
        self._is_orderly = False
        waited: set[asyncio.Future[Any]] = {self._lease.ended, worker.died}
        await asyncio.wait(waited, timeout=EXIT_GRACE, return_when=asyncio.FIRST_COMPLETED)
        if self._lease.ended.done():
            return self._lease.ended.result().report()
        return Report(Outcome.FAILED, f"The bot's process failed: {type(error).__name__}.", self._seconds())

    async def _run_stream(
        self,
        worker: WorkerProcess,
        stream: WebSocketTransport,
        fields: tuple[Any, ...],
        body: Any,
        flow_config: str | None,
    ) -> Report:
        held = websocket_handoff.of(stream.websocket)
        if held.is_peer_gone():  # it did not wait for a process
            return self._ended(Report(Outcome.DISCONNECTED, MESSAGES[Outcome.DISCONNECTED], 0.0))
        descriptor, head, early = held.give(stream.websocket.scope)
        try:
            asking = await self._ask_to_run(worker, fields, body, flow_config, (head, early), [descriptor])
        finally:
            os.close(descriptor)
        beside = [
            asyncio.ensure_future(self._note_accepted(stream)),
            asyncio.ensure_future(self._watch_peer(held, worker)),
        ]
        try:
            report = await self._run(worker, asking)
        except NeverBegan:
            raise  # the connection is still unanswered
        except BaseException:
            held.let_go()
            raise
        finally:
            for task in beside:
                task.cancel()
        self._finish(held, worker, report)
        return report

    async def _note_accepted(self, stream: WebSocketTransport) -> None:
        """Those who watch the socket here learn that it was accepted there."""
        await self._was_accepted
        await stream.websocket.accept()

    async def _watch_peer(self, held: WebSocketHandoff, worker: WorkerProcess) -> None:
        """A bot whose caller is gone may take its time, unless it blocks its loop, which then does not know."""
        while True:
            await asyncio.sleep(LOOK)
            if held.is_peer_gone() and not await _answers(worker):
                self._peer_gone.set_result(None)
                return

    def _finish(self, held: WebSocketHandoff, worker: WorkerProcess, report: Report) -> None:
        if self._is_orderly and not worker.died.done():
            held.end()
            return
        code, reason = CLOSE_CODES[report.outcome]
        held.close(code, reason, was_accepted=self._was_accepted.done())

    async def pick_up(self, call: WhatsAppCall) -> str:
        worker = (await self.take_worker()).worker
        session = self.session
        try:
            sdp: str = await worker.request(
                messages.PickUp,
                session.id,
                session.max_seconds,
                transport_as_dict(call),
                await self._pool.peers_ice_servers(),
                caller_as_list(session.caller),
            )
        except (WorkerDied, Failed) as error:
            how = error if isinstance(error, WorkerDied) else "failed"
            raise NotReached(f"The bot's process {how}.", session_id=session.id) from None
        return sdp

    async def hang_up(self) -> None:
        self._tell(messages.HangUp(self.session.id))

    def on_disconnect(self) -> None:
        super().on_disconnect()
        if self._has_entered:
            self._tell(messages.CallerLeft(self.session.id))
        else:  # no process has said yet that it has the session
            self._registry.cancel(self.session.id, Outcome.DISCONNECTED)

    async def answered(self, answering: asyncio.Future[Any]) -> None:
        """Wait until the worker has answered, whatever it takes: the session's end is passed on, and enforced.

        Raises:
            Outdated: another worker is to be asked.
        """
        worker = (await self.take_worker()).worker
        ends: set[asyncio.Future[Any]] = {self.session.stop, self._overdue, self._peer_gone}
        try:
            await asyncio.wait({answering, self._moves, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done() and not any(end.done() for end in ends):
                answering.cancel()
                worker.tell(Cancel(self.session.id, Outcome.CANCELLED.value))
                raise RevisionOutdated
            if not answering.done():
                await self._end(worker, self._cause(), answering)
        except asyncio.CancelledError:
            self.session.outcome = Outcome.CANCELLED
            worker.tell(Cancel(self.session.id, Outcome.CANCELLED.value))
            raise

    def _cause(self) -> Outcome:
        if self.session.stop.done():
            return self.session.stop.result()
        return Outcome.DISCONNECTED if self._peer_gone.done() else Outcome.EXPIRED

    async def _end(self, worker: WorkerProcess, outcome: Outcome, answering: asyncio.Future[Any]) -> None:
        self.session.outcome = outcome
        worker.tell(Cancel(self.session.id, outcome.value))
        await asyncio.wait({answering}, timeout=self._pool.limits.cancelling)
        if answering.done():
            return
        ignored = f"The bot's process {worker.pid} ignored its session's end ({outcome.value})"
        if worker.has_others:
            logger.error(f"{ignored}; it goes on for the other calls in it")
            answering.cancel()
        else:
            logger.error(f"{ignored}; it is killed")
            worker.kill("was killed, as it ignored its session's end")
        await asyncio.wait({answering})

    def go_on(self) -> None:
        """A session that has begun with an offer: its place is kept until it ends."""
        self.background_run = asyncio.ensure_future(self._until_ended())

    async def _until_ended(self) -> Report:
        lease = await self.take_worker()
        over = asyncio.ensure_future(_over(lease))
        with self._pool.lines_of(self.session.id):
            await self.answered(over)
        if over.cancelled():
            return self._given_up()
        try:
            return self._ended(over.result().report())
        except WorkerDied:
            return self._died(lease.worker)

    def _enter(self, state: str) -> None:
        self._has_entered = True
        if state == SessionState.RUNNING.value:
            seconds_left = self._registry.begin_run(self.session)
            if not self._was_accepted.done():
                self._was_accepted.set_result(None)
            if seconds_left is not None and self._timer is None:
                # The worker keeps the time. This is for one that cannot.
                late = seconds_left + self._pool.limits.cancelling
                self._timer = asyncio.get_running_loop().call_later(late, self._be_overdue)
            if self._began_at is None:
                self._began_at = time.monotonic()
        else:
            self._registry.enter(self.session, SessionState(state))
            self._move_if_possible()

    def _note_superseded(self) -> None:
        self._is_superseded = True
        self._move_if_possible()

    def _move_if_possible(self) -> None:
        """To newer code, while nobody has come and nothing is kept for the session here."""
        lease = self._lease
        if not (self._is_superseded and self._waits_for_offer and self.session.state is SessionState.WAITING):
            return
        if lease is None or lease.offers or lease.uploads or self.session.stop.done() or self._moves.done():
            return
        if self._disconnected.done():  # its process has been told, and another one would not be
            return
        logger.info(f"Session {self.session.id} ({self.session.age:.0f} s) has no caller yet: it gets the new code")
        lease.is_left = True
        self._moves.set_result(None)

    def _be_overdue(self) -> None:
        if not self._overdue.done():
            self._overdue.set_result(None)

    def _ended(self, report: Report) -> Report:
        self.session.outcome = report.outcome
        self.session.report = report
        return report

    def _given_up(self) -> Report:
        outcome = self.session.outcome or Outcome.CANCELLED
        return self._ended(Report(outcome, MESSAGES.get(outcome, ""), self._seconds()))

    def _seconds(self) -> float:
        return 0.0 if self._began_at is None else time.monotonic() - self._began_at

    def _died(self, worker: WorkerProcess) -> Report:
        how = worker.died.result()
        seconds = self._seconds()
        outcome = self.session.outcome or Outcome.FAILED
        message = MESSAGES.get(outcome, f"The bot's process {how}.")
        with logger.contextualize(session_id=self.session.id):
            logger.error(f"Session ended: {outcome.value} after {seconds:.1f} s: the bot's process {how}")
        if outcome is Outcome.FAILED:
            self._pool.emit("failure", self.session.id, {"exception_type": "ProcessDied"})
        if worker.exited is not None:
            used = {"cpu_secs": worker.exited.cpu, "peak_memory_bytes": worker.exited.peak, "shared": False}
            self._pool.emit("process", self.session.id, used)
        return self._ended(Report(outcome, message, seconds))

    def _tell(self, message: messages.Message) -> None:
        if self._lease is not None:
            self._lease.worker.tell(message)

    async def _give_back(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lease is not None:
            if not self._lease.ended.done():
                self._tell(Cancel(self.session.id, outcome.value))
            self._pool.give_back(self._lease)


def _result_of_run(value: Any) -> tuple[Outcome, str, float]:
    """Outcome, message and seconds, as an honest process replies.

    Raises:
        Failed: the reply is something else.
    """
    try:
        outcome, message, seconds = value
        return Outcome(outcome), str(message), float(seconds)
    except (TypeError, ValueError, OverflowError):
        raise Failed("the bot's process has answered with something else") from None


async def _answers(worker: WorkerProcess) -> bool:
    try:
        await asyncio.wait_for(worker.request(messages.Ping), BLOCKED)
    except TimeoutError:
        return False
    except (WorkerDied, Failed):
        pass
    return True


async def _over(lease: WorkerLease) -> Ended:
    """The end of its session.

    Raises:
        Died: it ended first.
    """
    waited: set[asyncio.Future[Any]] = {lease.ended, lease.worker.died}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if lease.ended.done():
        return lease.ended.result()
    raise WorkerDied(lease.worker.died.result())
