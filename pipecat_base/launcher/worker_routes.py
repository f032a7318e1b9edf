"""The routes that begin sessions, for a bot in workers: take a slot, lease a worker, and have it answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.api import requests
from pipecat_base.api.bot import bot_response, wants_webrtc
from pipecat_base.api.flow_config import SCOPE_KEY
from pipecat_base.api.websocket import StreamTokens, stream_paths
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import Settings
from pipecat_base.errors import Malformed, NoProcess, NotReached, TooLarge, UnknownPeer
from pipecat_base.logs.logger import logger
from pipecat_base.server.error_responses import ON_REFUSAL
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.lease import WorkerLease
from pipecat_base.workers.pool import WorkerPool

MAX_ANSWER_BYTES = 256 * 1024
"""Of the answer to an offer, read for its pc_id."""


class Endpoint:
    """Starlette takes an object for an ASGI application, and a function for a handler of requests."""

    def __init__(self, serve: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send)


class WorkerRoutes:
    """Reads what names the session; the worker parses the request itself.

    Args:
        tokens: Checks the single-use tokens of WebSockets; None accepts every connection.
    """

    def __init__(self, pool: WorkerPool, settings: Settings, tokens: Tokens | None) -> None:
        self._pool = pool
        self._tokens = StreamTokens(tokens)
        self._paths = stream_paths(takes_tokens=settings.websockets.auth == "token")
        self._max_body_bytes = settings.limits.max_body_bytes
        self._failure_status = settings.sessions.bot_failure_status

    def routes(self) -> list[BaseRoute]:
        routes: list[BaseRoute] = [Route("/bot", self._endpoint(self._bot), methods=["POST"])]
        routes += [WebSocketRoute(path, self._stream) for path in self._paths]
        if self._pool.about.webrtc_problem is None:
            routes.append(Route("/api/offer", self._endpoint(self._offer), methods=["POST"]))
            routes.append(Route("/api/offer", self._endpoint(self._candidates), methods=["PATCH"]))
        return routes

    def _endpoint(self, serve: Callable[[Scope, Receive, Send], Awaitable[None]]) -> Endpoint:
        async def serve_or_refuse(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                requests.session_id(Request(scope))
            except Malformed:  # refused behind the bot's middleware, as everything else
                await self._pool.answer(scope, receive, send)
            else:
                await serve(scope, receive, send)

        return Endpoint(serve_or_refuse)

    async def _bot(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wanted = _session_request(request, TransportKind.WEBRTC if wants_webrtc(request) else TransportKind.PLAIN)
        # Read first: an upload that stalls holds no slot.
        body = await requests.raw_body(request, self._max_body_bytes)
        lease = await self._begin(wanted, scope)
        try:
            async with self._watched(lease, receive):
                await self._forward(lease, scope, body, receive, send)
        except (NotReached, NoProcess):
            stopped = lease.session.stop.done()
            report = await lease.over if lease.over.done() or stopped else None
            if report is None:
                raise
            await asyncio.wait({lease.freed})
            await bot_response(lease.session.id, report, self._failure_status)(scope, receive, send)

    @contextlib.asynccontextmanager
    async def _watched(self, lease: WorkerLease, receive: Receive) -> AsyncIterator[None]:
        """End a session that waits for an offer if its caller leaves before a worker, which then watches, is leased."""
        if lease.session.transport is not TransportKind.WEBRTC:
            yield
            return

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            if lease.worker is None:
                self._pool.registry.cancel(lease.session.id, Outcome.DISCONNECTED)

        watching = asyncio.ensure_future(watch())
        try:
            yield
        finally:
            watching.cancel()

    async def _offer(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        wanted = _session_request(request, TransportKind.WEBRTC)
        body = await requests.raw_body(request, self._max_body_bytes)
        pc_id = await _peer_named_in(body)
        named = None if pc_id is None else self._pool.lease_of_peer(pc_id)
        lease = named or await self._pool.lease_of(wanted.session_id)
        again = _replay(body, receive)
        if lease is not None:
            with self._pool.registry.protect_from_eviction(wanted.session_id), OfferCount(lease) as count:
                await self._pool.answer(scope, again, self._noting_peer(lease, send, count), lease)
        elif pc_id is not None:
            await self._pool.answer(scope, again, send)
        else:
            ice = await self._pool.peers_ice_servers()
            lease = await self._begin(wanted, scope)
            with OfferCount(lease) as count:
                await self._forward(lease, scope, body, receive, self._noting_peer(lease, send, count), ice)

    async def _candidates(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await requests.raw_body(Request(scope, receive), self._max_body_bytes)
        pc_id = await _peer_named_in(body)
        lease = None if pc_id is None else self._pool.lease_of_peer(pc_id)
        try:
            await self._pool.answer(scope, _replay(body, receive), send, lease)
        except NotReached:
            raise UnknownPeer("This connection's call has ended.", field="pc_id") from None

    async def _stream(self, websocket: WebSocket) -> None:
        wanted = _session_request(websocket, TransportKind.WEBSOCKET)
        token = self._tokens.check(websocket, wanted.session_id)
        async with self._pool.reserve(wanted, announce=False) as lease:
            self._tokens.consume(token, wanted.session_id)
            lease.on_refusal = websocket.scope.get(ON_REFUSAL, lease.on_refusal)
            lease.keep()
            await lease.serve_stream(websocket, websocket.scope.get(SCOPE_KEY))
            if lease.over.result() is None:
                self._tokens.restore(token)

    async def _begin(self, wanted: SessionRequest, scope: Scope) -> WorkerLease:
        lease = await self._pool.begin(wanted)
        lease.on_refusal = scope.get(ON_REFUSAL, lease.on_refusal)
        return lease

    async def _forward(
        self, lease: WorkerLease, scope: Scope, body: bytes, receive: Receive, send: Send, ice: Any = None
    ) -> None:
        try:
            with logger.contextualize(session_id=lease.session.id):
                await lease.forward(scope, body, receive, send, ice)
        except asyncio.CancelledError:
            self._pool.registry.cancel(lease.session.id, Outcome.CANCELLED)
            raise

    def _noting_peer(self, lease: WorkerLease, send: Send, count: OfferCount) -> Send:
        """Keep the ``pc_id`` of an answer: later requests name only that."""
        status, answer = 0, bytearray()

        async def send_and_note(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if status == 200 and len(answer) <= MAX_ANSWER_BYTES:
                answer.extend(message.get("body", b""))
                if message["type"] == "http.response.body" and not message.get("more_body"):
                    count.was_answered = True
                    self._note(lease, bytes(answer))
            await send(message)

        return send_and_note

    def _note(self, lease: WorkerLease, answer: bytes) -> None:
        try:
            pc_id = json.loads(answer)["pc_id"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return
        if isinstance(pc_id, str):
            self._pool.note_peer(lease, pc_id)


class OfferCount:
    """Counts an offer of a lease while it is being answered, and after it was."""

    def __init__(self, lease: WorkerLease) -> None:
        self._lease = lease
        self.was_answered = False

    def __enter__(self) -> OfferCount:
        self._lease.offers += 1
        return self

    def __exit__(self, *error: object) -> None:
        if not self.was_answered:
            self._lease.offers -= 1


def _session_request(connection: Request | WebSocket, transport: TransportKind) -> SessionRequest:
    session_id = requests.session_id(connection)
    max_seconds = requests.max_seconds(connection, session_id, warns=False)  # the worker does
    return SessionRequest(session_id, transport, max_seconds, caller=requests.caller(connection))


def _replay(body: bytes, receive: Receive) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        return next(messages, None) or await receive()

    return receive_again


async def _peer_named_in(body: bytes) -> str | None:
    """Return the ``pc_id`` of an offer or of candidates; None for what the worker will refuse."""
    if b"pc_id" not in body:
        return None
    try:
        content = await requests.parse(body)
    except (Malformed, TooLarge):
        return None
    found = content.get("pc_id") if isinstance(content, dict) else None
    return found if isinstance(found, str) and found else None
