"""A session's worker: leased when the session needs one, watched until the session ends, then given back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, TypeVar

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.errors import NoProcess, NotReached, Refusal, refusal_from
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import CLOSE_CODES, MESSAGES, Outcome, Report
from pipecat_base.sessions.registry import CLOSE_TIMEOUT, Session, SessionRegistry, SessionState
from pipecat_base.sessions.slots import HeldSlot
from pipecat_base.sessions.transports import MoqServer, Transport, TransportKind, WhatsAppCall, as_dict
from pipecat_base.telemetry.bus import Emit
from pipecat_base.workers import http_proxy, websocket_handoff
from pipecat_base.workers.ipc.messages import FILE, MAX_URL, MOQ, Cancel, Serve, SessionEnded
from pipecat_base.workers.limits import WorkerLimits
from pipecat_base.workers.process import WorkerProcess
from pipecat_base.workers.websocket_handoff import WebSocketHandoff

DISCONNECT_CHECK_INTERVAL_SECONDS = 1.0
PING_TIMEOUT_SECONDS = 5.0  # after a hang-up, an event loop that answers no request counts as blocked for good
MAX_WORKERS_TRIED = 3  # for one session, while workers die before it begins in them
DEATH_NOTICE_SECONDS = 3.0  # from the end of a worker's connection to the news of its death
CALLER_LEFT_SECONDS = 5.0  # for a session to begin after its caller has left
NEWS_SECONDS = 1.0  # from a worker's response to its message that tells whether a session has begun
MAX_UPLOADS = 1000  # files remembered for one session, however many its process reports

T = TypeVar("T")


class WorkerSource(Protocol):
    """The pool, as its leases see it."""

    registry: SessionRegistry
    limits: WorkerLimits
    is_shared: bool
    """True if all sessions run in one worker, which also serves what belongs to none."""
    lines_of: Callable[[str], AbstractContextManager[None]]
    emit: Emit

    async def take(self, lease: WorkerLease) -> WorkerProcess: ...

    def give_back(self, lease: WorkerLease, worker: WorkerProcess) -> None: ...

    async def peers_ice_servers(self) -> list[dict[str, Any]] | None: ...


class WorkerLease(HeldSlot):
    """The launcher's side of a session in a worker.

    Attributes:
        over: Done with the report once the session has ended; None if its request began no session.
        waited: Seconds until a worker was ready.
        offers: WebRTC offers that were answered, or are being.
        uploads: URLs of the session's files, which the launcher deletes if the worker dies.
        on_refusal: Called with the refusal of the request that this lease is for.
    """

    def __init__(self, pool: WorkerSource, session: Session) -> None:
        super().__init__(pool.registry, session)
        loop = asyncio.get_running_loop()
        self.worker: WorkerProcess | None = None
        self.over: asyncio.Future[Report | None] = loop.create_future()
        self.waited = 0.0
        self.offers = 0
        self.uploads: list[str] = []
        self.on_refusal: Callable[[Refusal], None] = _ignore
        self._on_serving: Callable[[Sequence[str]], None] = _ignore
        self._pool = pool
        self._has_begun = loop.create_future()
        self._was_accepted = loop.create_future()
        self._lost = loop.create_future()
        """Done when the worker died before the session began; the next attempt replaces it."""
        self._number = 0  # names, in the worker's messages, the request that may begin this session
        self._workers_tried = 0
        self._run_started_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._overdue = loop.create_future()
        self._disconnect_unseen = loop.create_future()
        self._ended_in_worker = False  # the worker has then closed the WebSocket itself
        session.add_last_closer(self._give_back)

    # Messages of the worker.

    def on_state(self, number: int, state: SessionState, transport: TransportKind) -> None:
        if number != self._number or self.over.done():
            return
        self._registry.announce(self.session, transport)
        if not self._has_begun.done():
            self._has_begun.set_result(None)
            self._pool.emit("process_wait", self.session.id, {"wait_secs": self.waited})
        if state is not SessionState.RUNNING:
            self._registry.enter(self.session, state)
            return
        seconds_left = self._registry.begin_run(self.session)
        _settle(self._was_accepted, None)
        if seconds_left is not None and self._timer is None:
            # The worker enforces the limit itself, unless its event loop is blocked.
            late = seconds_left + self._pool.limits.cancelling
            self._timer = asyncio.get_running_loop().call_later(late, _settle, self._overdue, None)
        if self._run_started_at is None:
            self._run_started_at = time.monotonic()

    def on_noted(self, kind: str, values: list[str]) -> None:
        if kind == FILE:
            self.uploads += [url for url in values if len(url) <= MAX_URL][: MAX_UPLOADS - len(self.uploads)]
        elif kind == MOQ:
            self._on_serving(values)

    def on_ended(self, message: SessionEnded) -> None:
        if message.number != self._number or self.over.done():
            return
        refusal = _refusal([*(message.refusal or [None, None]), message.message])
        if refusal is not None:
            refusal.session_id = self.session.id
        if message.outcome is None and not self._has_begun.done():
            if refusal is not None:
                self.on_refusal(refusal)
            _settle(self.over, None)
            return
        self._ended_in_worker = True
        try:
            report = message.report()
        except ValueError:
            report = Report(Outcome.FAILED, "The bot's process sent an invalid report.", self._seconds())
        if message.leaves_bot_running and self.worker is not None:
            self.worker.is_spoiled = True
        self.session.refusal = refusal
        if refusal is None:
            self._settle_with(report)
        else:
            self.on_refusal(refusal)
            _settle(self.over, report)

    def on_death(self, worker: WorkerProcess) -> None:
        if self.over.done():
            return
        self._workers_tried += 1
        if self._has_begun.done() or self.session.outcome is not None or self._workers_tried >= MAX_WORKERS_TRIED:
            self._settle_with(self._report_of_death(worker))
            return
        # It had died while it was idle: another one can still serve the request.
        self.worker = None
        self._pool.give_back(self, worker)
        _settle(self._lost, None)

    # The session's end.

    async def until_over(self) -> Report | None:
        """Wait for the session's end; enforce it when it was requested, or is overdue."""
        ends: set[asyncio.Future[Any]] = {self.session.stop, self._overdue, self._disconnect_unseen}
        try:
            with self._pool.lines_of(self.session.id):
                await asyncio.wait({self.over, *ends}, return_when=asyncio.FIRST_COMPLETED)
                if not self.over.done():
                    await self._end(self._cause())
        except asyncio.CancelledError:
            self.session.outcome = Outcome.CANCELLED
            self._send_cancel(Outcome.CANCELLED)
            raise
        return self.over.result()

    def keep(self) -> None:
        """Keep the slot after its scope, until the session's end."""
        self.background_run = asyncio.ensure_future(self.until_over())

    def _cause(self) -> Outcome:
        if self.session.stop.done():
            return self.session.stop.result()
        return Outcome.DISCONNECTED if self._disconnect_unseen.done() else Outcome.EXPIRED

    async def _end(self, outcome: Outcome) -> None:
        self.session.outcome = outcome
        worker = self.worker
        if worker is None:  # it still waits for one
            self._settle_with(Report(outcome, MESSAGES[outcome], 0.0))
            return
        if self.session.stop.done():
            self._send_cancel(outcome)
            await asyncio.wait({self.over}, timeout=self._pool.limits.cancelling)
        # Otherwise the worker has had that time already: its event loop is blocked.
        if self.over.done():
            return
        ignored = f"The bot's process {worker.pid} did not stop when its session ended ({outcome.value})"
        if self._pool.is_shared and worker.calls > 1:
            logger.error(f"{ignored}; not killed: it runs other calls")
            self._settle_with(Report(outcome, MESSAGES.get(outcome, ""), self._seconds()))
        else:
            logger.error(f"{ignored}; killing it{_others(worker.calls)}")
            worker.kill("was killed, as it ignored its session's end")
            await asyncio.wait({self.over})

    def _send_cancel(self, outcome: Outcome) -> None:
        if self.worker is not None:
            self.worker.send(Cancel(self.session.id, outcome.value))

    def _report_of_death(self, worker: WorkerProcess) -> Report:
        self._registry.announce(self.session, self.session.transport)
        how = f"{worker.died.result()}{_others(worker.calls_at_end)}"
        outcome = self.session.outcome or Outcome.FAILED
        with logger.contextualize(session_id=self.session.id):
            seconds = self._seconds()
            logger.error(f"Session ended: {outcome.value} after {seconds:.1f} s: the bot's process {how}")
        if outcome is Outcome.FAILED:
            self._pool.emit("failure", self.session.id, {"exception_type": "ProcessDied"})
        if worker.exited is not None:
            used = {"cpu_secs": worker.exited.cpu, "peak_memory_bytes": worker.exited.peak, "shared": False}
            self._pool.emit("process", self.session.id, used)
        return Report(outcome, MESSAGES.get(outcome, f"The bot's process {how}."), seconds)

    def _settle_with(self, report: Report) -> None:
        self._registry.announce(self.session, self.session.transport)
        self.session.outcome, self.session.report = report.outcome, report
        _settle(self.over, report)

    def _seconds(self) -> float:
        return 0.0 if self._run_started_at is None else time.monotonic() - self._run_started_at

    async def _give_back(self, outcome: Outcome) -> None:
        if self._timer is not None:
            self._timer.cancel()
        worker, self.worker = self.worker, None
        if worker is None:
            return
        try:
            if not self.over.done():
                worker.send(Cancel(self.session.id, outcome.value))
                await asyncio.wait({self.over})
        finally:  # the time for closing is bounded
            worker.is_spoiled = worker.is_spoiled or not self.over.done()
            self._pool.give_back(self, worker)

    # Requests, served by the worker.

    async def take_worker(self) -> WorkerProcess:
        """Lease a worker, if none is; raises NoProcess."""
        while self.worker is None:
            try:
                worker = await self._pool.take(self)
            except NoProcess as refusal:
                if not self.session.stop.done():
                    self._registry.announce(self.session, self.session.transport)
                    self.session.refusal = refusal
                    _settle(self.over, None)
                raise
            if self.over.done():
                self._pool.give_back(self, worker)
                raise NotReached("The bot's process ended before it had answered.", session_id=self.session.id)
            self.worker = None if worker.died.done() else worker
        return self.worker

    async def forward(
        self, scope: Scope, body: bytes, receive: Receive, send: Send, ice: list[dict[str, Any]] | None = None
    ) -> None:
        """Have the worker answer a request that may begin this session.

        Raises:
            NoProcess: none was ready in time.
            NotReached: the worker died, and :attr:`over` tells how, or it did not answer.
        """

        async def respond(sock: socket.socket) -> None:
            await http_proxy.forward(sock, scope, self._replay(body, receive), self._after_the_end(send))

        await self._exchange(Serve.of(scope, session_id=self.session.id, ice=ice), respond)

    async def _exchange(self, request: Serve, respond: Callable[[socket.socket], Awaitable[T]]) -> T:
        """Have a worker serve a request that may begin the session; another one, if it dies before that."""
        try:
            while True:
                worker = await self.take_worker()
                self._lost = asyncio.get_running_loop().create_future()
                responding = asyncio.ensure_future(respond(worker.connect(self._numbered(worker, request))))
                try:
                    return await self._response(responding)
                except NotReached:
                    waited: set[asyncio.Future[Any]] = {self._lost, self.over}
                    await asyncio.wait(waited, timeout=DEATH_NOTICE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                    if self.over.done() or not self._lost.done():
                        raise
                finally:
                    responding.cancel()
        finally:
            await self._ensure_news()

    def _numbered(self, worker: WorkerProcess, request: Serve) -> Serve:
        self._number = worker.next_number()
        return replace(request, number=self._number)

    async def _response(self, responding: asyncio.Future[T]) -> T:
        waited: set[asyncio.Future[Any]] = {responding, self.over}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        if not responding.done() and self.over.result() is not None:
            await asyncio.wait({responding}, timeout=self._pool.limits.closing if self._ended_in_worker else 0)
            if not responding.done():
                raise NotReached("The bot's process does not answer.", session_id=self.session.id)
        return await responding

    async def _ensure_news(self) -> None:
        """Free the slot if a worker has answered, and does not say whether the session has begun."""
        if self.worker is None or self._has_begun.done() or self.over.done():
            return
        self.worker.poll()
        news: set[asyncio.Future[Any]] = {self._has_begun, self.over}
        await asyncio.wait(news, timeout=NEWS_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not self._has_begun.done() and not self.over.done():
            self.worker.is_spoiled = True
            self._send_cancel(Outcome.CANCELLED)
            _settle(self.over, None)

    def _replay(self, body: bytes, receive: Receive) -> Receive:
        """Give the whole body again; a disconnect is passed on once the session has begun, or has had time to."""

        async def receive_later() -> Message:
            message = await receive()
            if message["type"] == "http.disconnect":
                news: set[asyncio.Future[Any]] = {self._has_begun, self.over}
                await asyncio.wait(news, timeout=CALLER_LEFT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            return message

        return http_proxy.replayed(body, receive_later)

    def _after_the_end(self, send: Send) -> Send:
        """Free the slot of a session that has ended before its response is sent."""

        async def send_later(message: Message) -> None:
            if message["type"] == "http.response.start":
                if self.worker is not None:
                    self.worker.poll()
                if self.over.done():
                    await asyncio.wait({self.freed}, timeout=CLOSE_TIMEOUT)
            await send(message)

        return send_later

    async def _begin(self, path: str, content: Any, *, ice: Any = None) -> Any:
        """Make a request of the launcher's own that begins the session; return its answer. Raises Refusal."""
        request = Serve(session_id=self.session.id, is_internal=True, ice=ice)
        answer = await self._exchange(request, lambda sock: http_proxy.ask(sock, "POST", path, content))
        return answer.result()

    async def start(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> None:
        if isinstance(transport, MoqServer):
            self._on_serving = transport.on_serving
        self.keep()
        caller = [self.session.caller.peer, self.session.caller.traceparent]
        content = {"transport": as_dict(transport), "body": body, "flow_config": flow_config, "caller": caller}
        try:
            await self._begin("/sessions", content)
        except Refusal as refusal:
            if self.worker is not None:
                self.worker.poll()
            was_refused = self.session.refusal is not None  # after its admission there
            if self.session.stop.done() or (self._has_begun.done() and not was_refused):
                return  # the session is being ended, or has ended; its report says how
            self.session.refusal = self.session.refusal or refusal
            self.background_run = None  # the slot is free before the caller hears of it
            _settle(self.over, None)
            raise
        except BaseException:
            self._registry.cancel(self.session.id, Outcome.CANCELLED)
            raise

    async def pick_up(self, call: WhatsAppCall) -> str:
        self.offers += 1  # a reload does not end its session
        ice = await self._pool.peers_ice_servers()
        content = {"call": as_dict(call), "max_seconds": self.session.max_seconds}
        if self._has_begun.done():  # it waits for its offer, and the call takes it over
            answer = await self._ask("/calls", content, ice=ice)
        else:
            answer = await self._begin("/calls", content, ice=ice)
        if not isinstance(answer, dict) or not isinstance(answer.get("sdp"), str):
            raise NotReached("The bot's process sent no answer to the call.", session_id=self.session.id)
        return str(answer["sdp"])

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        """Run the session of a call that :meth:`pick_up` answered."""
        connecting = asyncio.ensure_future(self._connect())
        connecting.add_done_callback(_retrieve)
        report = await self.until_over()
        return report or Report(Outcome.FAILED, "The bot's process ended the session.", self._seconds())

    async def _connect(self) -> None:
        await self._ask("/calls/connect")

    async def hang_up(self) -> None:
        with contextlib.suppress(Refusal):  # the session has ended already
            await self._ask("/calls/hang-up")

    async def _ask(self, path: str, content: Any = None, *, ice: Any = None) -> Any:
        """Make a request of the launcher's own for a session that has begun."""
        worker = self.worker
        if worker is None or worker.died.done() or self.over.done():
            raise NotReached("The session has ended.", session_id=self.session.id)
        request = Serve(session_id=self.session.id, is_internal=True, ice=ice)
        asking = asyncio.ensure_future(http_proxy.ask(worker.connect(request), "POST", path, content))
        waited: set[asyncio.Future[Any]] = {asking, self.over}
        try:
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise NotReached("The session has ended.", session_id=self.session.id)
            return asking.result().result()
        finally:
            asking.cancel()

    # WebSockets, handed over to the worker.

    async def serve_stream(self, websocket: WebSocket, flow_config: str | None) -> None:
        handoff = websocket_handoff.handoff_of(websocket)
        request = Serve.of(websocket.scope, session_id=self.session.id, flow_config=flow_config)
        watching: list[asyncio.Future[None]] = []
        try:
            while not self.over.done():
                worker = await self.take_worker()
                if handoff.has_disconnected():  # while it waited for a process
                    handoff.abandon()
                    self._settle_with(Report(Outcome.DISCONNECTED, MESSAGES[Outcome.DISCONNECTED], 0.0))
                    break
                self._lost = asyncio.get_running_loop().create_future()
                handoff.give_to(worker.serve, self._numbered(worker, request), websocket.scope)
                watching = [
                    asyncio.ensure_future(self._pass_on_accept(websocket)),
                    asyncio.ensure_future(self._watch_disconnect(handoff, worker)),
                ]
                await asyncio.wait({self.over, self._lost}, return_when=asyncio.FIRST_COMPLETED)
                for task in watching:
                    task.cancel()
        except NoProcess:
            if not self.session.stop.done():
                if self._workers_tried:
                    handoff.close(*CLOSE_CODES[Outcome.FAILED], was_accepted=False)
                raise
        except OSError:  # no descriptor is left to hand over
            handoff.abandon()
            await self._ensure_news()
            raise
        except BaseException:
            handoff.abandon()
            raise
        finally:
            for task in watching:
                task.cancel()
        await asyncio.wait({self.over})
        self._close_websocket(handoff)

    async def _pass_on_accept(self, websocket: WebSocket) -> None:
        """Tell ASGI code around the socket that the worker accepted it."""
        await asyncio.shield(self._was_accepted)
        await websocket.accept()

    async def _watch_disconnect(self, handoff: WebSocketHandoff, worker: WorkerProcess) -> None:
        """After a hang-up, the bot may finish unless its event loop is blocked and cannot see the disconnect.

        Other calls of the process can go on when it no longer is: a hang-up does not end them.
        """
        while True:
            await asyncio.sleep(DISCONNECT_CHECK_INTERVAL_SECONDS)
            if handoff.has_disconnected() and not await _responds(worker) and worker.calls == 1:
                _settle(self._disconnect_unseen, None)
                return

    def _close_websocket(self, handoff: WebSocketHandoff) -> None:
        report = self.over.result()
        if report is None or self.session.refusal is not None:
            handoff.abandon()  # the worker's answer may still be on its way
            return
        if self._ended_in_worker:
            handoff.finish()
            return
        code, reason = CLOSE_CODES[report.outcome]
        handoff.close(code, reason, was_accepted=self._was_accepted.done())


def _others(calls: int) -> str:
    others = calls - 1
    return "" if others < 1 else f", and with it {others} other call{'s' * (others > 1)}"


async def _responds(worker: WorkerProcess) -> bool:
    try:
        async with asyncio.timeout(PING_TIMEOUT_SECONDS):
            await http_proxy.ask(worker.connect(Serve(is_internal=True)), "GET", "/livez")
    except TimeoutError:
        return False
    except (Refusal, OSError):
        pass
    return True


def _refusal(values: Sequence[str | None]) -> Refusal | None:
    """From its code, field and message."""
    code, field, message = (*values, None, None, None)[:3]
    return refusal_from({"error": {"code": code, "field": field, "message": message}})


def _settle(future: asyncio.Future[T], value: T) -> None:
    if not future.done():
        future.set_result(value)


def _retrieve(task: asyncio.Future[Any]) -> None:
    """The session's end says what a failure means."""
    if not task.cancelled():
        task.exception()


def _ignore(value: Any) -> None: ...
