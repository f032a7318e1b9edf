"""A worker: a process that holds the bot and takes one session after the launcher has asked for it."""

from __future__ import annotations

import asyncio
import atexit
import json
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.api import app as application
from pipecat_base.api import assembly
from pipecat_base.bot.assembly import for_worker, local_pod, session_registry
from pipecat_base.bot.imported import Imported
from pipecat_base.bot.pod import LocalPod
from pipecat_base.config.settings import ServerLimits, Settings
from pipecat_base.errors import Malformed, Refusal, StartupError
from pipecat_base.logs.logger import Logs, logger
from pipecat_base.logs.streams import flush_streams
from pipecat_base.server import large_json, server
from pipecat_base.server.connections import Connections
from pipecat_base.server.error_responses import session_id_in, session_log_context
from pipecat_base.server.handoff import ClosingWebSocket, serve_connection
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.server.loop_monitor import watch_lag, watch_own_loop
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest, SessionSlot
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import Caller, TransportKind, WebSocketTransport, WhatsAppCall
from pipecat_base.telemetry.events import make_event
from pipecat_base.workers.fork_server import leave_signals_to_launcher
from pipecat_base.workers.http_proxy import NO_HOST
from pipecat_base.workers.ipc.allowance import EventRateLimit
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    MAX_URL,
    AddCandidates,
    AnswerOffer,
    Began,
    CallerLeft,
    Cancel,
    Close,
    Delete,
    Ended,
    Entered,
    EventEmitted,
    GetCapabilities,
    GetIceServers,
    HangUp,
    Idle,
    LogFeatures,
    Message,
    NotServing,
    PickUp,
    Ping,
    Ready,
    Reply,
    Request,
    Run,
    ServeConnection,
    Serving,
    Stored,
    encode,
    transport_from,
)

BEAT = 0.25
"""Seconds between looks at signal handlers: a bot may take them."""
LAST_WORDS = 2.0
"""Seconds that a session gets to end where the launcher is gone."""
NOT_JSON = "readyz() returned a dict that is not JSON"
LAG_EVERY = 5.0
"""Seconds between facts of how late the loop runs."""
HANDSHAKE = 5.0
"""Seconds that the handshake of a WebSocket may take."""


def work(channel: Channel, settings: Settings, imported: Imported, logs: Logs) -> None:
    """Be a worker until the launcher says that this is the end, or is gone."""
    server.run(_serve(channel, settings, imported, logs), event_loop=settings.server.event_loop)
    atexit._run_exitfuncs()  # a fork skips them otherwise
    flush_streams()


async def _serve(channel: Channel, settings: Settings, imported: Imported, logs: Logs) -> None:
    lifecycle = Lifecycle()
    lifecycle.ready()

    events = EventSender(channel)

    is_heard = settings.telemetry.is_observed or settings.gateway.is_enabled
    is_timed = settings.telemetry.metrics_port is not None
    settings = for_worker(settings)
    registry, memory = session_registry(settings, lifecycle.refusal)
    pod = local_pod(settings, imported, registry, memory, logs, events.send if is_heard else None)
    routes = assembly.upload_routes(
        settings.files, pod, lambda session_id, url: _tell_of_file(channel, session_id, url)
    )
    app = application.build(routes, assembly.missing_routes(settings, pod.about, takes_whatsapp=True))
    measuring = []
    if is_timed:
        measuring.append(watch_lag(lambda lag: events.send(None, "process_loop_lag", lag, time.time()), LAG_EVERY))
    await Worker(channel, pod, app, settings.limits, imported.bot.project, measuring).run()


class EventSender:
    """Sends what is allowed in facts, and no more of them than the launcher takes."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._allowance = EventRateLimit()
        self._has_warned = False

    def send(self, session_id: str | None, name: str, fields: Mapping[str, Any], at: float) -> None:
        """One fact, with the time at which it happened."""
        found = make_event(name, session_id, fields, at)
        if found is None:
            return
        if self._allowance.take(name):
            self._channel.send(EventEmitted(session_id, name, dict(found.fields), found.at))
        elif not self._has_warned:
            self._has_warned = True
            logger.warning("This process has too many facts to report: some are in no metric and no report")


def _tell_of_file(channel: Channel, session_id: str, url: str) -> None:
    """Have the launcher remember a file, for when this process dies."""
    if len(url) <= MAX_URL:
        channel.send(Stored(session_id, url))
    else:
        logger.warning(f"A file's URL has {len(url)} characters: the file stays if the bot's process dies")


class WorkerCall:
    """A WhatsApp call that is picked up.

    Attributes:
        sdp: Done with the answer.
        run: Done when the bot is to be run on it.
        over: Done with its report, as :class:`~pipecat_base.workers.ipc.messages.Ended` has it.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.sdp: asyncio.Future[str] = loop.create_future()
        self.run: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[Any] = loop.create_future()

    def fail(self, error: Exception) -> None:
        """Whoever waits for it learns why."""
        for future in (self.sdp, self.over):
            if not future.done():
                future.set_exception(error)
                future.exception()  # nobody need ask


class Worker:
    """Does what the launcher asks for.

    Args:
        beside: What goes on all the time.
    """

    def __init__(
        self,
        channel: Channel,
        pod: LocalPod,
        app: ASGIApp,
        limits: ServerLimits,
        project: str,
        beside: Sequence[Coroutine[Any, Any, None]],
    ) -> None:
        self._beside = beside
        self._channel = channel
        self._pod = pod
        self._app = app
        self._connections = Connections(limits, ())  # the launcher counts connections
        self._project = project
        self._state: Mapping[str, Any] = {}
        self._slots: dict[str, SessionSlot] = {}
        self._calls: dict[str, WorkerCall] = {}
        self._cancelled: dict[str, Outcome] = {}
        """Sessions whose end was asked for before they were admitted here."""
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._requests: set[asyncio.Task[Any]] = set()
        """To the bot's own app."""
        self._replies: dict[type[Request], Callable[[Any], Awaitable[Any]]] = {
            Run: self._run,
            AnswerOffer: self._offer,
            AddCandidates: lambda request: self._pod.trickle(request.content),
            PickUp: self._pick_up,
            Ready: self._ready,
            Ping: lambda request: asyncio.sleep(0),
            GetCapabilities: lambda request: pod.capability_problems(),
            GetIceServers: self._ice_servers,
            Delete: self._delete,
        }

    async def run(self) -> None:
        """Set the bot up, serve, tear it down."""
        loop = asyncio.get_running_loop()
        self._channel.attach(loop, self._on_message, self._over.set)
        self._channel.send(Began())
        self._pod.registry.on_change(self._tell_of_change)
        beside = [
            asyncio.ensure_future(step) for step in (_hold_signals(), watch_own_loop(self._project), *self._beside)
        ]
        try:
            self._state = await self._pod.open()
        except StartupError as error:
            self._channel.send(NotServing.of(error))
            await asyncio.sleep(0)
            return
        self._channel.send(Idle(self._pod.takes_files))
        await self._over.wait()
        if self._pod.registry.cancel_all(Outcome.DRAINED):  # the launcher is gone
            await self._pod.registry.until_empty(LAST_WORDS)
        self._pod.stop()
        await self._pod.close()
        if self._requests:
            await asyncio.wait(self._requests, timeout=FINAL_REQUESTS_SECONDS)
        for task in beside:
            task.cancel()

    def _tell_of_change(self, session: Session) -> None:
        cancelled = self._cancelled.pop(session.id, None)
        if session.state is SessionState.ADMITTED and cancelled is not None:
            self._pod.registry.cancel(session.id, cancelled)
        if session.state is SessionState.ENDED:
            assert session.report is not None
            self._channel.send(Ended.of(session.id, session.report))
        else:
            self._channel.send(Entered(session.id, session.state.value))

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        if isinstance(message, Run) and message.has_body_file:
            message = replace(message, body=large_json.from_file(descriptors.pop()))
        elif isinstance(message, AnswerOffer | AddCandidates) and message.has_content_file:
            message = replace(message, content=large_json.from_file(descriptors.pop()))
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if isinstance(message, Run | AnswerOffer | PickUp):
            self._cancelled.pop(message.session_id, None)  # of an earlier session of this id
        if isinstance(message, Run) and sockets:
            self._begin(self._reply(message, self._run_stream(message, sockets[0])))
        elif isinstance(message, Request):
            self._begin(self._reply(message, self._replies[type(message)](message)))
        elif isinstance(message, ServeConnection):
            self._begin(self._serve_connection(message, sockets[0]))
        elif isinstance(message, Cancel):
            outcome = Outcome(message.outcome)
            if not self._pod.registry.cancel(message.session_id, outcome):
                self._cancelled[message.session_id] = outcome
        elif isinstance(message, CallerLeft) and message.session_id in self._slots:
            self._slots[message.session_id].on_disconnect()
        elif isinstance(message, HangUp) and message.session_id in self._slots:
            self._begin(self._slots[message.session_id].hang_up())
        elif isinstance(message, LogFeatures):
            self._pod.log_features()
        elif isinstance(message, Close):
            self._over.set()

    def _begin(self, step: Any) -> None:
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
            # By the bot, which has cancelled every task: the launcher has the report of its session.
            self._channel.send(Reply.failing(request.number, RuntimeError("the bot cancelled what runs it")))
            raise
        except Exception as error:
            logger.opt(exception=True).error(f"{type(request).__name__} failed: {type(error).__name__}")
            reply = Reply.failing(request.number, error)
        self._channel.send(reply)

    async def _ready(self, request: Ready) -> Any:
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
        here = {}
        if request.transport["kind"] == "MoqServer":
            here = {"on_serving": lambda found: self._channel.send(Serving(request.session_id, list(found)))}
        return await self._perform(request, transport_from(request.transport, **here))

    async def _perform(self, request: Run, transport: Any) -> Any:
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
        """Answer the handshake here, and run the bot on it."""
        begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            begun.set_result(None)
            websocket = WebSocket(scope, closing.watch_receive(receive), closing.watch_send(send))
            try:
                transport = WebSocketTransport(websocket, request.transport["transport_type"])
                ended.set_result(await self._perform(request, transport))
            except Refusal as refusal:
                ended.set_exception(refusal)
            except BaseException as error:
                ended.set_exception(error if isinstance(error, Exception) else RuntimeError(type(error).__name__))
                raise

        closing = ClosingWebSocket()
        transport = await serve_connection(app, self._connections, sock, request.head, request.early, closing)
        waited: set[asyncio.Future[None]] = {begun, closing.lost}
        await asyncio.wait(waited, timeout=HANDSHAKE, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            transport.abort()
            raise Malformed("This is no WebSocket handshake.", session_id=request.session_id)
        try:
            return await ended
        finally:
            if closing.duplicate is not None:
                closing.duplicate.close()  # the launcher's is the last one: it closes when the place is free

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
        """Answer with the SDP, and keep the place until the call is run or over."""
        self._pod.give_ice_servers(request.ice)
        call = WorkerCall()
        self._begin(self._keep_call(request, call))
        return await call.sdp

    async def _keep_call(self, request: PickUp, call: WorkerCall) -> None:
        transport = transport_from(request.transport)
        assert isinstance(transport, WhatsAppCall)
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

    async def _delete(self, request: Delete) -> Any:
        storage = self._pod.arguments.file_storage
        for url in request.urls:
            try:
                await storage.delete(url)
            except Exception as error:
                logger.warning(f"An uploaded file was not deleted: {type(error).__name__}")

    async def _serve_connection(self, connection: ServeConnection, sock: socket.socket) -> None:
        """Requests to the bot's own app, as whoever the launcher says."""

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


async def _hold_signals() -> None:
    while True:
        leave_signals_to_launcher()
        await asyncio.sleep(BEAT)
