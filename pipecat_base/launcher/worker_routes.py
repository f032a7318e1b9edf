"""The routes that begin sessions, for a bot in workers: take a slot, lease a worker, and have it answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.api import requests
from pipecat_base.api.bot import bot_response, wants_webrtc
from pipecat_base.api.flow_config import SCOPE_KEY
from pipecat_base.api.websocket import StreamTokens, stream_paths
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import Settings
from pipecat_base.errors import (
    LAUNCHER_HEADER,
    Malformed,
    NoProcess,
    NotReached,
    Refusal,
    TooLarge,
    UnknownPeer,
    refusal_from,
)
from pipecat_base.logs.logger import logger
from pipecat_base.server.error_responses import ON_REFUSAL
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers import http_proxy

if TYPE_CHECKING:
    from pipecat_base.workers.lease import WorkerLease
    from pipecat_base.workers.pool import WorkerPool

MAX_ANSWER_BYTES = 256 * 1024  # of the answer to an offer, read for its pc_id
GZIP = 16 + zlib.MAX_WBITS


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
            send = RefusalWatch(scope, send).send
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
        lease = await self._pool.begin(wanted)
        response = ResponseWatch(send)
        problem: Refusal | None = None
        try:
            async with self._watched(lease, receive):
                await self._forward(lease, scope, body, receive, response.send)
        except (NotReached, NoProcess) as refusal:
            problem = refusal
        if response.has_begun:
            if problem is not None:
                raise ConnectionResetError("the answer broke off")  # the server then closes the caller's connection
            return
        # The caller has left, or the worker has ended before it answered.
        if problem is None or lease.over.done() or lease.session.stop.done():
            await asyncio.wait({lease.freed})
            report = lease.over.result()
            if report is not None:
                await bot_response(lease.session.id, report, self._failure_status)(scope, receive, send)
                return
        if problem is not None:
            raise problem

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
        again = http_proxy.replayed(body, receive)
        if lease is None and pc_id is not None:
            await self._unknown_peer(scope, again, send)
        elif lease is None:
            lease = await self._pool.begin(wanted)
            with OfferCount(lease) as count:
                ice = await self._pool.peers_ice_servers()
                await self._forward(lease, scope, body, receive, self._noting_peer(lease, send, count), ice)
        else:
            with contextlib.suppress(_NotAnswered), self._pool.registry.protect_from_eviction(wanted.session_id):
                await self._offer_again(scope, again, send, lease, is_named=named is not None)

    async def _offer_again(
        self, scope: Scope, receive: Receive, send: Send, lease: WorkerLease, *, is_named: bool
    ) -> None:
        with OfferCount(lease) as count:
            ice = await self._pool.peers_ice_servers()
            try:
                await self._pool.answer(scope, receive, self._noting_peer(lease, send, count), lease, ice=ice)
            except NotReached:
                if not is_named:
                    raise
                raise UnknownPeer("This connection's call has ended.", field="pc_id") from None
            if not count.was_answered:
                raise _NotAnswered

    async def _candidates(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await requests.raw_body(Request(scope, receive), self._max_body_bytes)
        pc_id = await _peer_named_in(body)
        lease = None if pc_id is None else self._pool.lease_of_peer(pc_id)
        await self._unknown_peer(scope, http_proxy.replayed(body, receive), send, lease)

    async def _unknown_peer(self, scope: Scope, receive: Receive, send: Send, lease: WorkerLease | None = None) -> None:
        """Have the peer's worker answer, or the control worker, which then refuses."""
        try:
            await self._pool.answer(scope, receive, send, lease)
        except NotReached:
            raise UnknownPeer("This connection's call has ended.", field="pc_id") from None

    async def _stream(self, websocket: WebSocket) -> None:
        wanted = _session_request(websocket, TransportKind.WEBSOCKET)
        token = self._tokens.check(websocket, wanted.session_id)
        async with self._pool.reserve(wanted, announce=False) as lease:
            self._tokens.consume(token, wanted.session_id)
            lease.on_refusal = websocket.scope.get(ON_REFUSAL, lease.on_refusal)
            lease.keep()
            try:
                await lease.serve_stream(websocket, websocket.scope.get(SCOPE_KEY))
            finally:
                if lease.over.done() and lease.over.result() is None:
                    self._tokens.restore(token)

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

        def note(status: int, answer: Any) -> None:
            if status == HTTPStatus.OK:
                count.was_answered = True
                pc_id = answer.get("pc_id") if isinstance(answer, dict) else None
                if isinstance(pc_id, str):
                    self._pool.note_peer(lease, pc_id)

        return JsonWatch(send, note).send


class _NotAnswered(Exception):
    """An offer was refused."""


class ResponseWatch:
    def __init__(self, send: Send) -> None:
        self._send = send
        self.has_begun = False

    async def send(self, message: Message) -> None:
        self.has_begun = True
        await self._send(message)


class JsonWatch:
    """Calls ``note`` with the status and the JSON of a response, before its last part is sent; None if it is large."""

    def __init__(self, send: Send, note: Callable[[int, Any], None]) -> None:
        self._send = send
        self._note = note
        self._status = 0
        self._is_gzip = False
        self._content = bytearray()
        self._is_wanted = True

    async def send(self, message: Message) -> None:
        self._status = message.get("status", self._status)
        self._is_gzip = self._is_gzip or (b"content-encoding", b"gzip") in message.get("headers", ())
        if self._is_wanted and len(self._content) <= MAX_ANSWER_BYTES:
            self._content += message.get("body", b"")
        if self._is_wanted and message["type"] == "http.response.body" and not message.get("more_body"):
            self._note(self._status, self._parsed())
        await self._send(message)

    def _parsed(self) -> Any:
        if len(self._content) > MAX_ANSWER_BYTES:
            return None
        try:
            if self._is_gzip:  # by the bot's own middleware
                return json.loads(zlib.decompressobj(GZIP).decompress(self._content, MAX_ANSWER_BYTES))
            return json.loads(self._content)
        except (ValueError, RecursionError, zlib.error):
            return None


class RefusalWatch(JsonWatch):
    """Reports a refusal that a worker has answered, as one of the launcher's own."""

    def __init__(self, scope: Scope, send: Send) -> None:
        super().__init__(send, self._report)
        self._on_refusal: Callable[[Refusal], None] = scope.get(ON_REFUSAL, _ignore)
        self._is_wanted = False

    async def send(self, message: Message) -> None:
        names = [name for name, _ in message.get("headers", ())]
        self._is_wanted = self._is_wanted or LAUNCHER_HEADER.encode() in names
        await super().send(message)

    def _report(self, status: int, content: Any) -> None:
        if (refusal := refusal_from(content)) is not None:
            self._on_refusal(refusal)


def _ignore(refusal: Refusal) -> None: ...


def noting_refusals(app: ASGIApp) -> ASGIApp:
    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send if scope["type"] == "websocket" else RefusalWatch(scope, send).send)

    return serve


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
