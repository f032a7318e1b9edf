"""The worker's side of the launcher's messages: serves the connections that it is handed, and reports its sessions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.api.flow_config import SCOPE_KEY as FLOW_CONFIG_KEY
from pipecat_base.api.requests import SESSION_ID_KEY
from pipecat_base.bot.pod import LocalPod
from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import Refusal, StartupError
from pipecat_base.logs.logger import logger
from pipecat_base.server.connections import Connections
from pipecat_base.server.error_responses import ON_REFUSAL, session_id_in, session_log_context
from pipecat_base.server.handoff import ClosingWebSocket, serve_connection
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS, MAX_HEADERS
from pipecat_base.server.loop_monitor import watch_own_loop
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.workers.fork_hazards import listening_addresses
from pipecat_base.workers.fork_server import leave_signals_to_launcher
from pipecat_base.workers.http_proxy import NO_HOST
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    Cancel,
    Close,
    Message,
    Progress,
    Serve,
    SessionEnded,
    Stage,
    StartupFailed,
    StateEntered,
)

SIGNAL_CHECK_INTERVAL_SECONDS = 0.25
ORPHANED_SESSION_TIMEOUT_SECONDS = 2.0
NO_TIMEOUT_SECONDS = 7 * 86400.0


class ServedRequests:
    """Serves the pod until the launcher closes it.

    Args:
        app: For requests of callers.
        internal: For the launcher's own.
    """

    def __init__(
        self,
        channel: Channel,
        pod: LocalPod,
        app: ASGIApp,
        internal: ASGIApp,
        limits: ServerLimits,
        project: str,
        background: Sequence[Coroutine[Any, Any, None]],
    ) -> None:
        self._channel = channel
        self._pod = pod
        self._app = app
        self._internal = internal
        self._connections = Connections(_loose(limits), (), max_headers=MAX_HEADERS + 1)
        self._websockets = Connections(limits, ())
        """Connections of callers: nothing else sees that a caller does not read."""
        self._project = project
        self._background = background
        self._state: Mapping[str, Any] = {}
        self._pending: dict[int, Serve] = {}  # requests that may still begin a session, by number
        self._numbers: dict[str, int] = {}  # of the requests that began the sessions that run
        self._cancelled: dict[str, Outcome] = {}  # sessions that were cancelled before they were admitted
        self._closing = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        self._channel.attach(asyncio.get_running_loop(), self._on_message, self._closing.set)
        self._channel.send(Progress(Stage.LOOP_STARTED))
        self._pod.registry.on_change(self._report)
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
        self._channel.send(Progress(Stage.IDLE, self._pod.takes_files, listening_addresses()))
        await self._closing.wait()
        if self._pod.registry.cancel_all(Outcome.DRAINED):  # the launcher has ended
            await self._pod.registry.until_empty(ORPHANED_SESSION_TIMEOUT_SECONDS)
        await self._pod.wait_for_leftovers()
        self._pod.stop()
        await self._pod.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINAL_REQUESTS_SECONDS)
        for task in background_tasks:
            task.cancel()

    def _report(self, session: Session) -> None:
        if session.id not in self._numbers:
            self._admit(session)
        number = self._numbers[session.id]
        if session.state is SessionState.ENDED:
            assert session.report is not None
            del self._numbers[session.id]
            left = session.leaves_bot_running
            self._channel.send(
                SessionEnded.of(session.id, number, session.report, session.refusal, leaves_bot_running=left)
            )
        else:
            self._channel.send(StateEntered(session.id, session.state.value, session.transport.value, number))

    def _admit(self, session: Session) -> None:
        found = (number for number, request in reversed(self._pending.items()) if request.session_id == session.id)
        number = next(found, 0)
        self._numbers[session.id] = number
        cancelled = self._cancelled.pop(session.id, None)
        if self._pending.pop(number, None) is None:  # the launcher has given the slot away meanwhile
            cancelled = Outcome.CANCELLED
        if cancelled is not None:
            self._pod.registry.cancel(session.id, cancelled)

    def _report_none(self, request: Serve, refusal: Refusal | None = None) -> None:
        """Report that a request is answered, or about to be, without having begun a session."""
        if self._pending.pop(request.number, None) is not None:
            session_id = request.session_id or ""
            self._cancelled.pop(session_id, None)
            refused = None if refusal is None else [refusal.code, refusal.field]
            self._channel.send(SessionEnded(session_id, request.number, refusal=refused))

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if isinstance(message, Serve):
            if message.number:
                self._pending[message.number] = message
                self._cancelled.pop(message.session_id or "", None)  # of an earlier session of this id
            task = asyncio.ensure_future(self._serve(message, sockets))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(message, Cancel):
            outcome = Outcome(message.outcome)
            if not self._pod.registry.cancel(message.session_id, outcome):
                self._cancelled[message.session_id] = outcome
        elif isinstance(message, Close):
            self._closing.set()

    async def _serve(self, request: Serve, sockets: Sequence[socket.socket]) -> None:
        try:
            for sock in sockets:  # none where this process has no descriptor left
                await self._serve_connection(request, sock)
        except Exception as error:
            logger.opt(exception=error).error(f"A connection was not served: {type(error).__name__}")
        finally:
            self._report_none(request)

    async def _serve_connection(self, request: Serve, sock: socket.socket) -> None:
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closing = ClosingWebSocket()
        refusals: list[Refusal] = []

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self._complete(scope, request, refusals)
            if scope["type"] == "websocket":
                receive, send = closing.watch_receive(receive), closing.watch_send(send)
            inside = self._internal if request.is_internal else self._app
            try:
                with session_log_context(request.session_id or session_id_in(scope["headers"])):
                    await inside(scope, receive, self._reporting_first(request, refusals, send))
            finally:
                if closing.duplicate is not None:
                    closing.duplicate.close()  # the launcher's own descriptor closes last, when the slot is free
                if not served.done():
                    served.set_result(None)

        connections = self._websockets if request.head else self._connections
        await serve_connection(app, connections, sock, request.head, request.early, closing)
        waited: set[asyncio.Future[None]] = {served, closing.lost}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)

    def _complete(self, scope: Scope, request: Serve, refusals: list[Refusal]) -> None:
        """Give the scope what only the launcher's server knows."""
        scope["client"], scope["server"] = (
            None if found is None else tuple(found) for found in (request.client, request.server)
        )
        scope["scheme"] = request.scheme
        scope["headers"] = [header for header in scope["headers"] if header != (b"host", NO_HOST)]
        scope.setdefault("state", {}).update(self._state)
        scope[SESSION_ID_KEY] = request.session_id
        scope[ON_REFUSAL] = refusals.append
        if request.flow_config is not None:
            scope[FLOW_CONFIG_KEY] = request.flow_config
        if request.ice is not None:
            self._pod.give_ice_servers(request.ice)

    def _reporting_first(self, request: Serve, refusals: list[Refusal], send: Send) -> Send:
        """Report before the response begins: the slot is free when the caller hears that no session has begun."""

        async def report_and_send(message: Any) -> None:
            # Middleware of the bot may begin a good response before the session.
            is_refusal = refusals or message.get("status", 0) >= HTTPStatus.BAD_REQUEST
            if is_refusal or message["type"] in ("websocket.http.response.start", "websocket.close"):
                self._report_none(request, refusals[0] if refusals else None)
            await send(message)

        return report_and_send


def _loose(limits: ServerLimits) -> ServerLimits:
    """Limits of connections from the launcher, which has enforced them already; heads grow as they are passed on."""
    return replace(
        limits,
        max_head_bytes=2 * limits.max_head_bytes,
        max_unfinished_bytes=2 * limits.max_unfinished_bytes,
        head_timeout=NO_TIMEOUT_SECONDS,
        body_timeout=NO_TIMEOUT_SECONDS,
    )


async def _keep_ignoring_signals() -> None:
    while True:
        leave_signals_to_launcher()
        await asyncio.sleep(SIGNAL_CHECK_INTERVAL_SECONDS)
