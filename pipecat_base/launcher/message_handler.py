"""Handles the launcher's messages in a worker: runs sessions, and answers requests that belong to no session."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.bot.pod import LocalPod
from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import Malformed, Refusal, StartupError
from pipecat_base.logs.logger import logger
from pipecat_base.server import large_json
from pipecat_base.server.connections import Connections
from pipecat_base.server.error_responses import session_id_in, session_log_context
from pipecat_base.server.handoff import ClosingWebSocket, serve_connection
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.server.loop_monitor import watch_own_loop
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest, SessionSlot
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import Caller, TransportKind, WebSocketTransport, WhatsAppCall
from pipecat_base.workers.fork_hazards import listening_addresses
from pipecat_base.workers.fork_server import leave_signals_to_launcher
from pipecat_base.workers.http_proxy import NO_HOST
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    AddCandidates,
    AnswerOffer,
    CallerLeft,
    Cancel,
    CheckReadiness,
    Close,
    ConnectCall,
    DeleteUploads,
    GetCapabilities,
    GetIceServers,
    HangUp,
    LogFeatures,
    LoopStarted,
    Message,
    MoqServing,
    PickUp,
    Ping,
    Reply,
    Request,
    Run,
    ServeConnection,
    SessionEnded,
    StartupFailed,
    StateEntered,
    WorkerIdle,
    encode,
    transport_from,
)

SIGNAL_CHECK_INTERVAL_SECONDS = 0.25
ORPHANED_SESSION_TIMEOUT_SECONDS = 2.0
NOT_JSON = "readyz() returned a dict that is not JSON"
HANDSHAKE_TIMEOUT_SECONDS = 5.0


class WorkerCall:
    """A WhatsApp call that is answered. ``over`` has the reply to :class:`Run`."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sdp: asyncio.Future[str] = loop.create_future()
        self.run: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[Any] = loop.create_future()

    def fail(self, error: Exception) -> None:
        for future in (self.sdp, self.over):
            if not future.done():
                future.set_exception(error)
                future.exception()  # or asyncio would log it as never retrieved


class MessageHandler:
    def __init__(
        self,
        channel: Channel,
        pod: LocalPod,
        app: ASGIApp,
        limits: ServerLimits,
        project: str,
        background: Sequence[Coroutine[Any, Any, None]],
    ) -> None:
        self._background = background
        self._channel = channel
        self._pod = pod
        self._app = app
        self._connections = Connections(limits, ())  # the launcher counts connections
        self._project = project
        self._state: Mapping[str, Any] = {}
        self._slots: dict[str, SessionSlot] = {}
        self._calls: dict[str, WorkerCall] = {}
        self._cancelled: dict[str, Outcome] = {}
        """Sessions that were cancelled before they were admitted here."""
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: set[asyncio.Task[Any]] = set()
        """Requests to the bot's own app."""
        self._replies: dict[type[Request], Callable[[Any], Awaitable[Any]]] = {
            Run: self._run,
            AnswerOffer: self._offer,
            AddCandidates: lambda request: self._pod.trickle(request.content),
            PickUp: self._pick_up,
            CheckReadiness: self._ready,
            Ping: lambda request: asyncio.sleep(0),
            GetCapabilities: lambda request: pod.capability_problems(),
            GetIceServers: self._ice_servers,
            DeleteUploads: self._delete,
        }

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        self._channel.attach(loop, self._on_message, self._closing.set)
        self._channel.send(LoopStarted())
        self._pod.registry.on_change(self._report_state)
        background_tasks = [
            asyncio.ensure_future(step)
            for step in (_keep_ignoring_signals(), watch_own_loop(self._project), *self._background)
        ]
        try:
            self._state = await self._pod.open()
        except StartupError as error:
            self._channel.send(StartupFailed.of(error))
            await asyncio.sleep(0)
            return
        self._channel.send(WorkerIdle(self._pod.takes_files, listening_addresses()))
        await self._closing.wait()
        if self._pod.registry.cancel_all(Outcome.DRAINED):  # the launcher has ended
            await self._pod.registry.until_empty(ORPHANED_SESSION_TIMEOUT_SECONDS)
        self._pod.stop()
        await self._pod.close()
        if self._requests:
            await asyncio.wait(self._requests, timeout=FINAL_REQUESTS_SECONDS)
        for task in background_tasks:
            task.cancel()

    def _report_state(self, session: Session) -> None:
        cancelled = self._cancelled.pop(session.id, None)
        if session.state is SessionState.ADMITTED and cancelled is not None:
            self._pod.registry.cancel(session.id, cancelled)
        if session.state is SessionState.ENDED:
            assert session.report is not None
            self._channel.send(SessionEnded.of(session.id, session.report))
        else:
            self._channel.send(StateEntered(session.id, session.state.value))

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Run) and message.has_body_file:
            message = replace(message, body=large_json.from_file(descriptors.pop()))
        elif isinstance(message, AnswerOffer | AddCandidates) and message.has_content_file:
            message = replace(message, content=large_json.from_file(descriptors.pop()))
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if isinstance(message, Run | AnswerOffer | PickUp):
            self._cancelled.pop(message.session_id, None)  # of an earlier session of this id
        if isinstance(message, Run) and sockets:
            self._start_task(self._reply(message, self._run_stream(message, sockets[0])))
        elif isinstance(message, Request):
            self._start_task(self._reply(message, self._replies[type(message)](message)))
        elif isinstance(message, ServeConnection):
            self._start_task(self._serve_connection(message, sockets[0]))
        elif isinstance(message, Cancel):
            outcome = Outcome(message.outcome)
            if not self._pod.registry.cancel(message.session_id, outcome):
                self._cancelled[message.session_id] = outcome
        elif isinstance(message, CallerLeft) and message.session_id in self._slots:
            self._slots[message.session_id].on_disconnect()
        elif isinstance(message, ConnectCall) and message.session_id in self._slots:
            self._start_task(self._slots[message.session_id].connect())
        elif isinstance(message, HangUp) and message.session_id in self._slots:
            self._start_task(self._slots[message.session_id].hang_up())
        elif isinstance(message, LogFeatures):
            self._pod.log_features()
        elif isinstance(message, Close):
            self._closing.set()

    def _start_task(self, step: Any) -> None:
        task = asyncio.ensure_future(step)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, request: Request, answering: Awaitable[Any]) -> None:
        try:
            value = await answering
            reply = Reply(request.number, value)
            if len(encode(reply)) > Reply.max_bytes:
                raise ValueError(f"the answer has more than {Reply.max_bytes} bytes")
        except Refusal as refusal:
            reply = Reply.refusing(request.number, refusal)
        except asyncio.CancelledError:
            # The bot has cancelled every task: the launcher has the report of its session.
            self._channel.send(Reply.failing(request.number, RuntimeError("the bot cancelled what runs it")))
            raise
        except Exception as error:
            logger.opt(exception=True).error(f"{type(request).__name__} failed: {type(error).__name__}")
            reply = Reply.failing(request.number, error)
        self._channel.send(reply)

    async def _ready(self, request: CheckReadiness) -> Any:
        verdict = await self._pod.ready()
        try:
            json.dumps(verdict)
        except (TypeError, ValueError):
            logger.error(NOT_JSON)
            return {"ready": verdict["ready"], "reason": NOT_JSON}
        return verdict

    async def _run(self, request: Run) -> Any:
        call = self._calls.get(request.session_id)
        if call is not None:
            call.run.set_result(None)
            return await call.over
        local_fields = {}
        if request.transport["kind"] == "MoqServer":
            local_fields = {"on_serving": lambda found: self._channel.send(MoqServing(request.session_id, list(found)))}
        return await self._run_bot(request, transport_from(request.transport, **local_fields))

    async def _run_bot(self, request: Run, transport: Any) -> Any:
        kind, caller = TransportKind(request.transport_kind), Caller(*request.caller)
        session_request = SessionRequest(request.session_id, kind, request.max_seconds, caller=caller)
        with session_log_context(request.session_id):
            async with self._pod.reserve(session_request) as slot:
                self._slots[request.session_id] = slot
                try:
                    report = await slot.run(transport, request.body, flow_config=request.flow_config)
                finally:
                    del self._slots[request.session_id]
        return [report.outcome.value, report.message, report.seconds]

    async def _run_stream(self, request: Run, sock: socket.socket) -> Any:
        """Accept the WebSocket here, and run the bot on it."""
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            started.set_result(None)
            websocket = WebSocket(scope, closing.watch_receive(receive), closing.watch_send(send))
            try:
                transport = WebSocketTransport(websocket, request.transport["transport_type"])
                ended.set_result(await self._run_bot(request, transport))
            except Refusal as refusal:
                ended.set_exception(refusal)
            except BaseException as error:
                ended.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
                raise

        closing = ClosingWebSocket()
        transport = await serve_connection(app, self._connections, sock, request.head, request.early, closing)
        waited: set[asyncio.Future[None]] = {started, closing.lost}
        await asyncio.wait(waited, timeout=HANDSHAKE_TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            transport.abort()
            raise Malformed("This is no WebSocket handshake.", session_id=request.session_id)
        try:
            return await ended
        finally:
            if closing.duplicate is not None:
                closing.duplicate.close()  # the launcher's own descriptor closes last, when the slot is free

    async def _ice_servers(self, request: GetIceServers) -> Any:
        return await (self._pod.ice_servers() if request.configured_only else self._pod.all_ice_servers())

    async def _offer(self, request: AnswerOffer) -> Any:
        self._pod.give_ice_servers(request.ice)
        with session_log_context(request.session_id):
            caller = Caller(*request.caller)
            session_request = SessionRequest(
                request.session_id, TransportKind.WEBRTC, request.max_seconds, caller=caller
            )
            return await self._pod.offer(session_request, request.content)

    async def _pick_up(self, request: PickUp) -> Any:
        """Reply with the SDP, and keep the slot until the call is run or over."""
        self._pod.give_ice_servers(request.ice)
        transport = transport_from(request.transport)
        assert isinstance(transport, WhatsAppCall)
        if request.session_id in self._slots:  # the call takes a session over that waits for its offer
            with session_log_context(request.session_id):
                return await self._slots[request.session_id].pick_up(transport)
        call = WorkerCall()
        self._start_task(self._keep_call(request, transport, call))
        return await call.sdp

    async def _keep_call(self, request: PickUp, transport: WhatsAppCall, call: WorkerCall) -> None:
        session_id = request.session_id
        session_request = SessionRequest(
            session_id, TransportKind.WHATSAPP, request.max_seconds, caller=Caller(*request.caller)
        )
        try:
            with session_log_context(session_id):
                async with self._pod.reserve(session_request) as slot:
                    self._slots[session_id], self._calls[session_id] = slot, call
                    call.sdp.set_result(await slot.pick_up(transport))
                    result = None
                    if await slot.wait(call.run) is None:
                        ended = await slot.run(transport, None)
                        result = [ended.outcome.value, ended.message, ended.seconds]
                    await slot.hang_up()
            call.over.set_result(result)
        except Exception as error:
            call.fail(error)
        finally:
            self._slots.pop(session_id, None)
            self._calls.pop(session_id, None)

    async def _delete(self, request: DeleteUploads) -> Any:
        storage = self._pod.arguments.file_storage
        for url in request.urls:
            try:
                await storage.delete(url)
            except Exception as error:
                logger.warning(f"An uploaded file was not deleted: {type(error).__name__}")

    async def _serve_connection(self, connection: ServeConnection, sock: socket.socket) -> None:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["client"] = None if connection.client is None else tuple(connection.client)
            scope["scheme"] = connection.scheme
            scope["headers"] = [header for header in scope["headers"] if header != (b"host", NO_HOST)]
            scope.setdefault("state", {}).update(self._state)
            task = asyncio.current_task()
            assert task is not None
            self._requests.add(task)
            task.add_done_callback(self._requests.discard)
            with session_log_context(session_id_in(scope["headers"])):
                await self._app(scope, receive, send)

        await serve_connection(app, self._connections, sock, connection.head, connection.early, ClosingWebSocket())


async def _keep_ignoring_signals() -> None:
    while True:
        leave_signals_to_launcher()
        await asyncio.sleep(SIGNAL_CHECK_INTERVAL_SECONDS)
