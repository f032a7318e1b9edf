"""The worker's side of the launcher's messages: serves the connections that it is handed, and reports its sessions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.api.flow_config import SCOPE_KEY as FLOW_CONFIG_KEY
from pipecat_base.api.requests import SESSION_ID_KEY
from pipecat_base.bot.pod import LocalPod
from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import Refusal, StartupError
from pipecat_base.server.connections import Connections
from pipecat_base.server.error_responses import ON_REFUSAL, session_id_in, session_log_context
from pipecat_base.server.handoff import ClosingWebSocket, serve_connection
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.server.loop_monitor import watch_own_loop
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.workers.fork_hazards import listening_addresses
from pipecat_base.workers.fork_server import leave_signals_to_launcher
from pipecat_base.workers.http_proxy import NO_HOST
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    REFUSAL,
    Cancel,
    Close,
    Message,
    Noted,
    Progress,
    Serve,
    SessionEnded,
    Stage,
    StartupFailed,
    StateEntered,
)

SIGNAL_CHECK_INTERVAL_SECONDS = 0.25
ORPHANED_SESSION_TIMEOUT_SECONDS = 2.0


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
        self._connections = Connections(limits, ())  # the launcher counts connections
        self._project = project
        self._background = background
        self._state: Mapping[str, Any] = {}
        self._unanswered: set[str] = set()
        """Sessions of requests whose response has not begun, and that have not been admitted."""
        self._cancelled: dict[str, Outcome] = {}
        """Sessions that were cancelled before they were admitted."""
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
        self._pod.stop()
        await self._pod.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=FINAL_REQUESTS_SECONDS)
        for task in background_tasks:
            task.cancel()

    def _report(self, session: Session) -> None:
        self._unanswered.discard(session.id)
        cancelled = self._cancelled.pop(session.id, None)
        if session.state is SessionState.ADMITTED and cancelled is not None:
            self._pod.registry.cancel(session.id, cancelled)
        if session.state is SessionState.ENDED:
            assert session.report is not None
            self._channel.send(SessionEnded.of(session.id, session.report, session.refusal))
        else:
            self._channel.send(StateEntered(session.id, session.state.value, session.transport.value))

    def _report_none(self, session_id: str | None) -> None:
        """Report that a request is answered, or about to be, without having begun a session."""
        if session_id in self._unanswered:
            self._unanswered.discard(session_id)
            self._cancelled.pop(session_id, None)
            self._channel.send(SessionEnded(session_id))

    def _on_message(self, message: Message, descriptors: list[int]) -> None:
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        if isinstance(message, Serve) and sockets:
            if message.session_id is not None:
                self._begin(message.session_id)
            task = asyncio.ensure_future(self._serve(message, sockets[0]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif isinstance(message, Cancel):
            outcome = Outcome(message.outcome)
            if not self._pod.registry.cancel(message.session_id, outcome):
                self._cancelled[message.session_id] = outcome
        elif isinstance(message, Close):
            self._closing.set()

    def _begin(self, session_id: str) -> None:
        if self._pod.registry.get(session_id) is None:
            self._unanswered.add(session_id)
            self._cancelled.pop(session_id, None)  # of an earlier session of this id

    async def _serve(self, request: Serve, sock: socket.socket) -> None:
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        closing = ClosingWebSocket()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            self._complete(scope, request)
            if scope["type"] == "websocket":
                receive, send = closing.watch_receive(receive), closing.watch_send(send)
            try:
                with session_log_context(request.session_id or session_id_in(scope["headers"])):
                    await (self._internal if request.is_internal else self._app)(
                        scope, receive, self._noting_start(request.session_id, send)
                    )
            finally:
                self._report_none(request.session_id)
                if closing.duplicate is not None and request.session_id is not None:
                    closing.duplicate.close()  # the launcher's own descriptor closes last, when the slot is free
                if not served.done():
                    served.set_result(None)

        await serve_connection(app, self._connections, sock, request.head, request.early, closing)
        waited: set[asyncio.Future[None]] = {served, closing.lost}
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        self._report_none(request.session_id)

    def _complete(self, scope: Scope, request: Serve) -> None:
        """Give the scope what only the launcher's server knows."""
        scope["client"], scope["server"] = (
            None if found is None else tuple(found) for found in (request.client, request.server)
        )
        scope["scheme"] = request.scheme
        scope["headers"] = [header for header in scope["headers"] if header != (b"host", NO_HOST)]
        scope.setdefault("state", {}).update(self._state)
        scope[SESSION_ID_KEY] = request.session_id
        scope[ON_REFUSAL] = lambda refusal: self._note_refusal(request.session_id, refusal)
        if request.flow_config is not None:
            scope[FLOW_CONFIG_KEY] = request.flow_config
        if request.ice is not None:
            self._pod.give_ice_servers(request.ice)

    def _note_refusal(self, session_id: str | None, refusal: Refusal) -> None:
        if session_id is not None:
            self._channel.send(Noted(session_id, REFUSAL, [refusal.code]))

    def _noting_start(self, session_id: str | None, send: Send) -> Send:
        async def send_and_note(message: Any) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.close"):
                self._report_none(session_id)
            await send(message)

        return send_and_note


async def _keep_ignoring_signals() -> None:
    while True:
        leave_signals_to_launcher()
        await asyncio.sleep(SIGNAL_CHECK_INTERVAL_SECONDS)
