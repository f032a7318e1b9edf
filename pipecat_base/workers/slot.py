"""A session slot whose bot runs in a worker."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from pipecat_base.errors import NoProcess, NotReached
from pipecat_base.logs.logger import logger
from pipecat_base.server.large_json import as_descriptor_if_large
from pipecat_base.sessions.outcome import CLOSE_CODES, MESSAGES, Outcome, Report
from pipecat_base.sessions.registry import Session, SessionRegistry, SessionState
from pipecat_base.sessions.slots import HeldSlot
from pipecat_base.sessions.transports import MoqServer, Transport, WebSocketTransport, WhatsAppCall
from pipecat_base.telemetry.bus import Emit
from pipecat_base.workers import websocket_handoff
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.messages import Cancel, RemoteError, SessionEnded, caller_as_list, transport_as_dict
from pipecat_base.workers.limits import EXIT_GRACE, WorkerLimits
from pipecat_base.workers.process import WorkerDied, WorkerLease, WorkerProcess
from pipecat_base.workers.websocket_handoff import WebSocketHandoff

DISCONNECT_CHECK_INTERVAL_SECONDS = 1.0
PING_TIMEOUT_SECONDS = 5.0
"""After a hang-up, an event loop that answers no ping counts as blocked for good."""
MAX_WORKERS_TRIED = 3
"""For one session, while workers die before it begins in them."""


class DiedBeforeSession(Exception):
    pass


class WorkerSource(Protocol):
    """The pool, as its slots see it."""

    registry: SessionRegistry
    limits: WorkerLimits
    lines_of: Callable[[str], AbstractContextManager[None]]
    emit: Emit

    async def take(self, session: Session) -> WorkerLease: ...

    def give_back(self, lease: WorkerLease) -> None: ...

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None: ...


class WorkerSlot(HeldSlot):
    """Leases a worker when the session needs one."""

    def __init__(self, pool: WorkerSource, session: Session) -> None:
        super().__init__(pool.registry, session)
        self._pool = pool
        self._lease: WorkerLease | None = None
        self._run_started_at: float | None = None
        self._overdue: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._disconnect_unseen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._worker_closed_socket = True
        """Whether the run ended in its worker, which then has closed the WebSocket itself."""
        self._timer: asyncio.TimerHandle | None = None
        self._workers_tried = 0
        self._has_begun = False
        self._was_accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        session.add_last_closer(self._give_back)

    async def take_worker(self) -> WorkerLease:
        if self._lease is None:
            self._lease = await self._pool.take(self.session)
            self._lease.on_state = self._on_state
        return self._lease

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        while True:
            try:
                return await self._try_to_run(transport, body, flow_config)
            except DiedBeforeSession:  # the worker had died while it was idle
                assert self._lease is not None
                self._pool.give_back(self._lease)
                self._lease = None
                if self._disconnected.done():
                    self._registry.cancel(self.session.id, Outcome.DISCONNECTED)

    async def _try_to_run(self, transport: Transport, body: Any, flow_config: str | None) -> Report:
        try:
            lease = await self.take_worker()
        except NoProcess:
            if not self.session.stop.done():
                raise
            outcome = self.session.stop.result()
            return self._finish_with(Report(outcome, MESSAGES[outcome], 0.0))
        worker = lease.worker
        if isinstance(transport, MoqServer):
            lease.on_serving = transport.on_serving
        session = self.session
        fields = (session.id, session.transport.value, session.max_seconds, transport_as_dict(transport))
        if isinstance(transport, WebSocketTransport):
            return await self._run_stream(worker, transport, fields, body, flow_config)
        return await self._run(worker, await self._request_run(worker, fields, body, flow_config))

    async def _request_run(
        self,
        worker: WorkerProcess,
        fields: tuple[Any, ...],
        body: Any,
        flow_config: str | None,
        stream: tuple[bytes, bytes] = (b"", b""),
        descriptors: Sequence[int] = (),
    ) -> asyncio.Future[Any]:
        """Send the request, with duplicates of the descriptors, and return the future reply."""
        async with as_descriptor_if_large(body) as (shown, files):
            rest = (shown, flow_config, caller_as_list(self.session.caller), *stream, bool(files))
            reply = worker.request(messages.Run, *fields, *rest, descriptors=[*descriptors, *files])
            replying = asyncio.ensure_future(reply)
            await asyncio.sleep(0)
        return replying

    async def _run(self, worker: WorkerProcess, reply: Any) -> Report:
        running = asyncio.ensure_future(reply)
        with self._pool.lines_of(self.session.id):
            await self.wait_and_enforce_end(running)
        if running.cancelled():
            return self._report_unanswered()
        try:
            outcome, message, seconds = _checked_result(running.result())
        except WorkerDied:
            self._workers_tried += 1
            if not self._has_begun and self.session.outcome is None and self._workers_tried < MAX_WORKERS_TRIED:
                raise DiedBeforeSession from None
            return self._report_death(worker)
        except RemoteError as error:
            return self._finish_with(await self._report_error(worker, error))
        assert self._lease is not None
        ended = self._lease.ended  # arrives before the reply
        bot_error = ended.result().report().bot_error if ended.done() else None
        return self._finish_with(Report(outcome, message, seconds, bot_error))

    async def _report_error(self, worker: WorkerProcess, error: RemoteError) -> Report:
        """Return the worker's report of the session, if it still arrives."""
        assert self._lease is not None
        self._worker_closed_socket = False
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
        handoff = websocket_handoff.handoff_of(stream.websocket)
        if handoff.has_disconnected():  # while it waited for a process
            return self._finish_with(Report(Outcome.DISCONNECTED, MESSAGES[Outcome.DISCONNECTED], 0.0))
        descriptor, head, early = handoff.hand_over(stream.websocket.scope)
        try:
            reply = await self._request_run(worker, fields, body, flow_config, (head, early), [descriptor])
        finally:
            os.close(descriptor)
        watching = [
            asyncio.ensure_future(self._pass_on_accept(stream)),
            asyncio.ensure_future(self._watch_disconnect(handoff, worker)),
        ]
        try:
            report = await self._run(worker, reply)
        except DiedBeforeSession:
            raise  # another worker can still answer the handshake
        except BaseException:
            handoff.abandon()
            raise
        finally:
            for task in watching:
                task.cancel()
        self._close_websocket(handoff, worker, report)
        return report

    async def _pass_on_accept(self, stream: WebSocketTransport) -> None:
        """Tell ASGI code around the socket that the worker accepted it."""
        await self._was_accepted
        await stream.websocket.accept()

    async def _watch_disconnect(self, handoff: WebSocketHandoff, worker: WorkerProcess) -> None:
        """After a hang-up, the bot may finish unless its event loop is blocked and cannot see the disconnect."""
        while True:
            await asyncio.sleep(DISCONNECT_CHECK_INTERVAL_SECONDS)
            if handoff.has_disconnected() and not await _responds(worker):
                self._disconnect_unseen.set_result(None)
                return

    def _close_websocket(self, handoff: WebSocketHandoff, worker: WorkerProcess, report: Report) -> None:
        if self._worker_closed_socket and not worker.died.done():
            handoff.finish()
            return
        code, reason = CLOSE_CODES[report.outcome]
        handoff.close(code, reason, was_accepted=self._was_accepted.done())

    async def pick_up(self, call: WhatsAppCall) -> str:
        lease = await self.take_worker()
        lease.offers += 1  # a reload does not end its session
        worker, session = lease.worker, self.session
        try:
            sdp: str = await worker.request(
                messages.PickUp,
                session.id,
                session.max_seconds,
                transport_as_dict(call),
                await self._pool.peers_ice_servers(),
                caller_as_list(session.caller),
            )
        except (WorkerDied, RemoteError) as error:
            how = error if isinstance(error, WorkerDied) else "failed"
            raise NotReached(f"The bot's process {how}.", session_id=session.id) from None
        return sdp

    async def _connect(self) -> None:
        self._send(messages.ConnectCall(self.session.id))

    async def hang_up(self) -> None:
        self._send(messages.HangUp(self.session.id))

    def on_disconnect(self) -> None:
        super().on_disconnect()
        if self._has_begun:
            self._send(messages.CallerLeft(self.session.id))
        else:  # no worker has begun the session yet
            self._registry.cancel(self.session.id, Outcome.DISCONNECTED)

    async def wait_and_enforce_end(self, answering: asyncio.Future[Any]) -> None:
        """Wait for the reply; pass on the session's end, and enforce it."""
        worker = (await self.take_worker()).worker
        ends: set[asyncio.Future[Any]] = {self.session.stop, self._overdue, self._disconnect_unseen}
        try:
            await asyncio.wait({answering, *ends}, return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                await self._end(worker, self._cause(), answering)
        except asyncio.CancelledError:
            self.session.outcome = Outcome.CANCELLED
            worker.send(Cancel(self.session.id, Outcome.CANCELLED.value))
            raise

    def _cause(self) -> Outcome:
        if self.session.stop.done():
            return self.session.stop.result()
        return Outcome.DISCONNECTED if self._disconnect_unseen.done() else Outcome.EXPIRED

    async def _end(self, worker: WorkerProcess, outcome: Outcome, answering: asyncio.Future[Any]) -> None:
        self.session.outcome = outcome
        worker.send(Cancel(self.session.id, outcome.value))
        await asyncio.wait({answering}, timeout=self._pool.limits.cancelling)
        if answering.done():
            return
        ignored = f"The bot's process {worker.pid} did not stop when its session ended ({outcome.value})"
        if worker.has_other_sessions:
            logger.error(f"{ignored}; not killed: it runs other calls")
            answering.cancel()
        else:
            logger.error(f"{ignored}; killing it")
            worker.kill("was killed, as it ignored its session's end")
        await asyncio.wait({answering})

    def keep_until_ended(self) -> None:
        """For a session that began with an offer."""
        self.background_run = asyncio.ensure_future(self._until_ended())

    async def _until_ended(self) -> Report:
        lease = await self.take_worker()
        over = asyncio.ensure_future(_session_end(lease))
        with self._pool.lines_of(self.session.id):
            await self.wait_and_enforce_end(over)
        if over.cancelled():
            return self._report_unanswered()
        try:
            return self._finish_with(over.result().report())
        except WorkerDied:
            return self._report_death(lease.worker)

    def _on_state(self, state: str) -> None:
        self._has_begun = True
        if state == SessionState.RUNNING.value:
            seconds_left = self._registry.begin_run(self.session)
            if not self._was_accepted.done():
                self._was_accepted.set_result(None)
            if seconds_left is not None and self._timer is None:
                # The worker enforces the limit itself, unless its event loop is blocked.
                late = seconds_left + self._pool.limits.cancelling
                self._timer = asyncio.get_running_loop().call_later(late, self._note_overdue)
            if self._run_started_at is None:
                self._run_started_at = time.monotonic()
        else:
            self._registry.enter(self.session, SessionState(state))

    def _note_overdue(self) -> None:
        if not self._overdue.done():
            self._overdue.set_result(None)

    def _finish_with(self, report: Report) -> Report:
        self.session.outcome = report.outcome
        self.session.report = report
        return report

    def _report_unanswered(self) -> Report:
        outcome = self.session.outcome or Outcome.CANCELLED
        return self._finish_with(Report(outcome, MESSAGES.get(outcome, ""), self._seconds()))

    def _seconds(self) -> float:
        return 0.0 if self._run_started_at is None else time.monotonic() - self._run_started_at

    def _report_death(self, worker: WorkerProcess) -> Report:
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
        return self._finish_with(Report(outcome, message, seconds))

    def _send(self, message: messages.Message) -> None:
        if self._lease is not None:
            self._lease.worker.send(message)

    async def _give_back(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lease is not None:
            if not self._lease.ended.done():
                self._send(Cancel(self.session.id, outcome.value))
            self._pool.give_back(self._lease)


def _checked_result(value: Any) -> tuple[Outcome, str, float]:
    try:
        outcome, message, seconds = value
        return Outcome(outcome), str(message), float(seconds)
    except (TypeError, ValueError, OverflowError):
        raise RemoteError("the bot's process sent an invalid reply") from None


async def _responds(worker: WorkerProcess) -> bool:
    try:
        await asyncio.wait_for(worker.request(messages.Ping), PING_TIMEOUT_SECONDS)
    except TimeoutError:
        return False
    except (WorkerDied, RemoteError):
        pass
    return True


async def _session_end(lease: WorkerLease) -> SessionEnded:
    waited: set[asyncio.Future[Any]] = {lease.ended, lease.worker.died}
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
    if lease.ended.done():
        return lease.ended.result()
    raise WorkerDied(lease.worker.died.result())
