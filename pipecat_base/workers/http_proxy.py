"""HTTP/1.1 client for another process's app, over any connected socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from starlette.types import Message, Receive, Scope, Send

from pipecat_base.auth.internal_headers import TOKEN_HEADER
from pipecat_base.errors import Malformed, NotReached, refusal_from
from pipecat_base.server import large_json

CHUNK_BYTES = 64 * 1024
MAX_ANSWER_BYTES = 256 * 1024  # to the launcher itself, whose event loop parses it while every call waits
# Sent in place of a missing Host header, which HTTP/1.1 requires; removed before the bot sees it.
NO_HOST = b"none.invalid"
# Headers of one connection, not of the request (RFC 9110 section 7.6.1).
HOP_BY_HOP = frozenset({b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer"})


async def forward(sock: socket.socket, scope: Scope, receive: Receive, send: Send) -> None:
    """Forward one request through ``sock``, and close it; raises Malformed or NotReached."""
    first = await receive()
    try:
        request = _request(scope, has_body=bool(first.get("body") or first.get("more_body")))
    except h11.LocalProtocolError as error:
        sock.close()
        raise Malformed(f"This request cannot be passed on: {error}.") from None
    reader, writer = await asyncio.open_connection(sock=sock)
    exchange = _Exchange(reader, writer)
    uploading = asyncio.ensure_future(exchange.upload(request, first, receive))
    try:
        await exchange.respond(send)
    finally:
        uploading.cancel()
        writer.close()
        await asyncio.wait({uploading})
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@dataclass(frozen=True)
class Answer:
    status: int
    content: Any

    def result(self) -> Any:
        """Return the JSON, or raise the refusal that it is."""
        if self.status >= HTTPStatus.BAD_REQUEST:
            raise refusal_from(self.content) or NotReached("The bot's process failed.")
        return self.content


def replayed(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read again, whole, before what comes after it."""
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive_again() -> Message:
        return next(messages, None) or await receive()

    return receive_again


async def ask(sock: socket.socket, method: str, path: str, content: Any = None) -> Answer:
    """Make a request of the launcher's own; raises NotReached."""
    body = b"" if content is None else await large_json.dumps(content)
    scope: Scope = {"method": method, "path": path, "headers": [(b"content-length", b"%d" % len(body))]}
    left = asyncio.get_running_loop().create_future()
    status, answer = 500, bytearray()

    async def wait() -> Message:
        message: Message = await left
        return message

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)
        answer.extend(message.get("body", b""))
        if len(answer) > MAX_ANSWER_BYTES:
            raise NotReached("The bot's process sent too long an answer.")

    try:
        await forward(sock, scope, replayed(body, wait), send)
    except ConnectionResetError as error:
        raise NotReached("The bot's process ended while it answered.") from error
    try:
        found = json.loads(answer or b"null")
    except (ValueError, RecursionError):
        found = None
    return Answer(status, found)


class _Exchange:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT)
        self._caller_left = False

    async def upload(self, request: h11.Request, message: Message, receive: Receive) -> None:
        """Send the request; then close the connection as soon as the caller disconnects."""
        with contextlib.suppress(OSError, RuntimeError, h11.LocalProtocolError):
            await self._write(request)
            while message["type"] != "http.disconnect":
                if message.get("body"):
                    await self._write(h11.Data(data=message["body"]))
                if not message.get("more_body", False):
                    await self._write(h11.EndOfMessage())
                    break
                message = await receive()
        while message["type"] != "http.disconnect":
            message = await receive()
        self._caller_left = True
        self._writer.transport.abort()

    async def respond(self, send: Send) -> None:
        started = False
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                started = True
                headers = [(bytes(n), bytes(v)) for n, v in event.headers if bytes(n) not in HOP_BY_HOP]
                await send({"type": "http.response.start", "status": event.status_code, "headers": headers})
            elif isinstance(event, h11.Data):
                await send({"type": "http.response.body", "body": bytes(event.data), "more_body": True})
            elif isinstance(event, h11.EndOfMessage):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            elif not isinstance(event, h11.InformationalResponse):
                if self._caller_left:
                    return
                if started:
                    raise ConnectionResetError("the answer broke off")  # the server then closes the caller's connection
                raise NotReached("The bot's process ended before it had answered.")

    async def _next(self) -> object:
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                return None
            if event is not h11.NEED_DATA:
                return event
            try:
                self._http.receive_data(await self._reader.read(CHUNK_BYTES))
            except (OSError, h11.RemoteProtocolError, RuntimeError):
                return None

    async def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await self._writer.drain()


def _request(scope: Scope, *, has_body: bool) -> h11.Request:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope.get("query_string"):
        target += b"?" + scope["query_string"]
    left_out = (*HOP_BY_HOP, b"host", TOKEN_HEADER.encode())  # the gateway's secret is not for the bot
    headers = [(name, value.strip()) for name, value in scope["headers"] if name not in left_out]
    # HTTP/1.1 allows one Host header: the first, which the bot's own server would use.
    headers.append((b"host", next((value for name, value in scope["headers"] if name == b"host"), NO_HOST)))
    if has_body and not any(name == b"content-length" for name, _ in headers):
        headers.append((b"transfer-encoding", b"chunked"))
    return h11.Request(method=scope["method"].encode(), target=target, headers=headers)
