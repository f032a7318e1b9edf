"""WebSockets that a worker will serve: held unanswered until the worker is known, then handed over.

The worker gets a duplicate of the descriptor: no frame passes through the launcher, and if the worker dies, the
launcher can still close the connection with a code (RFC 6455 section 7.4), so that no peer sees 1006.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import select
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from urllib.parse import unquote

import h11
from starlette.types import Message, Scope
from starlette.websockets import WebSocket
from uvicorn import Config
from uvicorn.server import ServerState

from pipecat_base.auth.internal_headers import TOKEN_HEADER
from pipecat_base.logs.logger import logger
from pipecat_base.server.handshake import address, subprotocols
from pipecat_base.server.limits import LINGER_SECONDS
from pipecat_base.workers.ipc.messages import Serve

EXTENSION = "pipecat_base.websocket_handoff"
OPCODE_CLOSE = 0x88
KEY_BYTES = 16
INTERNAL_ERROR = b"Internal Server Error"


class WebSocketHandoff(asyncio.Protocol):
    """Given to uvicorn as its ``ws`` option."""

    def __init__(self, config: Config, server_state: ServerState, app_state: dict[str, Any]) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._early = b""
        self._response: list[bytes] | None = None
        self._handed_over = False
        self._is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server_state.connections.add(cast(Any, self))

    def connection_lost(self, error: Exception | None) -> None:
        self._is_lost = True
        self._server_state.connections.discard(cast(Any, self))
        self._messages.put_nowait({"type": "websocket.disconnect", "code": 1006})

    def begin(self, head: h11.Request, early: bytes) -> None:
        """Take over from the HTTP connection that has read the head, and the bytes after it."""
        self._early = early
        # The worker reads on; what the client sends before that can wait.
        self._transport.pause_reading()
        problem = _handshake_problem(head)
        if problem is not None:
            status = 400 if head.method == b"GET" else 405
            self._transport.write(_response(status, [(b"sec-websocket-version", b"13")], problem))
            self._transport.close()
            return
        self._messages.put_nowait({"type": "websocket.connect"})
        task = asyncio.get_running_loop().create_task(self._run(self._scope(head)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    # Nothing is read before the worker's end.
    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> None:
        pass

    # Too little is written to fill a buffer.
    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def shutdown(self) -> None:
        if not self._handed_over:
            self._transport.close()

    def give_to(self, serve: Callable[[int, Serve], None], request: Serve, scope: Scope) -> None:
        """Hand the connection over; the launcher keeps its own descriptor."""
        self._handed_over = True
        sock = self._transport.get_extra_info("socket")
        serve(sock.fileno(), replace(request, head=_request(scope), early=self._early))

    def has_disconnected(self) -> bool:
        """Also true if nothing has read the end yet."""
        sock = self._transport.get_extra_info("socket")
        if self._is_lost or sock is None or sock.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def abandon(self) -> None:
        """Close the launcher's descriptor: the worker keeps the connection."""
        self._transport.abort()

    def close(self, code: int, reason: str, *, was_accepted: bool) -> None:
        """Close the WebSocket for a worker that has died."""
        if self._transport.is_closing():
            return
        if was_accepted:
            payload = struct.pack("!H", code) + reason.encode()[:123]
            self._transport.write(bytes((OPCODE_CLOSE, len(payload))) + payload)
        else:
            self._transport.write(_response(500, [], INTERNAL_ERROR))
        self.finish()

    def finish(self) -> None:
        """Half-close and drain: unread frames would turn the close into a reset and lose its code."""
        if self._transport.is_closing():
            return
        with contextlib.suppress(OSError, RuntimeError):
            self._transport.write_eof()
        self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._transport.abort)

    async def _run(self, scope: Scope) -> None:
        try:
            await self._config.loaded_app(scope, self._messages.get, self._send)
        except Exception as error:
            logger.opt(exception=error).error(f"A WebSocket was not served: {type(error).__name__}")
        if not self._handed_over and not self._transport.is_closing():
            self._transport.write(_response(500, [], INTERNAL_ERROR))
            self._transport.close()

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if self._handed_over or self._transport.is_closing():
            return
        if kind == "websocket.http.response.start":
            self._response = [_head(message["status"], message.get("headers", ()))]
        elif kind == "websocket.http.response.body" and self._response is not None:
            self._response.append(message.get("body", b""))
            if not message.get("more_body", False):
                self._transport.write(b"".join(self._response))
                self._transport.close()
        elif kind == "websocket.close":
            self._transport.write(_response(403, [], b""))
            self._transport.close()
        else:
            raise RuntimeError("The worker that runs the session accepts its WebSocket")

    def _scope(self, head: h11.Request) -> Scope:
        raw_path, _, query = bytes(head.target).partition(b"?")
        headers = [(bytes(name).lower(), bytes(value)) for name, value in head.headers]
        offered = [value.decode("latin-1") for name, value in headers if name == b"sec-websocket-protocol"]
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": head.http_version.decode(),
            "scheme": "ws",
            "server": address(self._transport.get_extra_info("sockname")),
            "client": address(self._transport.get_extra_info("peername")),
            "root_path": self._config.root_path,
            "path": self._config.root_path + unquote(raw_path.decode("ascii", "replace")),
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "subprotocols": subprotocols(offered),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self},
        }


def handoff_of(websocket: WebSocket) -> WebSocketHandoff:
    found: WebSocketHandoff = websocket.scope["extensions"][EXTENSION]
    return found


def _handshake_problem(head: h11.Request) -> bytes | None:
    """Check the handshake (RFC 6455 section 4.2.1) before it takes a slot."""
    values = {bytes(name).lower(): bytes(value).strip() for name, value in head.headers}
    if head.method != b"GET":
        return b"A WebSocket handshake is a GET."
    if values.get(b"sec-websocket-version") != b"13":
        return b"Only version 13 of WebSocket is spoken here."
    try:
        is_key = len(base64.b64decode(values.get(b"sec-websocket-key", b""), validate=True)) == KEY_BYTES
    except ValueError:
        is_key = False
    return None if is_key else b"Sec-WebSocket-Key is missing, or is no key."


def _request(scope: Scope) -> bytes:
    target: bytes = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    lines = [
        b"GET " + target + b" HTTP/1.1",
        *(name + b": " + value for name, value in scope["headers"] if name != TOKEN_HEADER.encode()),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _head(status: int, headers: Any) -> bytes:
    reason = {400: b"Bad Request", 403: b"Forbidden", 405: b"Method Not Allowed", 500: INTERNAL_ERROR}.get(status, b"")
    lines = [b"HTTP/1.1 %d %s" % (status, reason), *(bytes(n) + b": " + bytes(v) for n, v in headers)]
    return b"\r\n".join([*lines, b"connection: close"]) + b"\r\n\r\n"


def _response(status: int, headers: Any, body: bytes) -> bytes:
    lengths = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    return _head(status, [*headers, *lengths]) + body
