"""WebSockets with bounds, on websockets' protocol without I/O."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Generator, Iterable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import h11
from starlette.types import Message
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.streams import StreamReader

from pipecat_base.logs.logger import logger
from pipecat_base.server.connections import Connections
from pipecat_base.server.flow_control import BoundedReader
from pipecat_base.server.handshake import address, subprotocols
from pipecat_base.server.rate_limit import RateLimit

MAX_FRAGMENTS = 1024
MAX_QUEUED_MESSAGES = 8
LARGE_MESSAGE_BYTES = 64 * 1024  # a single message above this size pauses reading too
MAX_MESSAGES_PER_TURN = 8  # messages that the application receives before other tasks get a turn
MAX_REASON_BYTES = 123
CLOSE_TIMEOUT_SECONDS = 5.0
FLUSH_CHECK_INTERVAL_SECONDS, MAX_FLUSH_CHECKS = 0.01, 100
POLICY_VIOLATION, TRY_AGAIN_LATER, ABNORMAL, INTERNAL_ERROR = 1008, 1013, 1006, 1011
SERVICE_RESTART, NO_STATUS = 1012, 1005
CLOSES = {
    1002: "the peer broke the WebSocket protocol",
    1007: "a text message that is not UTF-8",
    1008: "more frames than `PIPECAT_MAX_FRAMES_PER_SECOND`, or more than 1024 frames in one message",
    1009: "a message of more than 16 MiB",
    1011: "the peer sent nothing for `PIPECAT_WEBSOCKET_PING` after a ping, or the WebSocket could not be served",
    1012: "the launcher ended before the session could close it",
    1013: "unfinished requests and messages fill `PIPECAT_MAX_UNFINISHED_BYTES`; retry",
}
"""Close codes of the server, whatever the session reports (docs/reference/errors.md)."""


# Before Python 3.12 each access to an enum member is a call: not for every frame.
CONTINUATION, TEXT, CLOSE, PING = Opcode.CONT, Opcode.TEXT, Opcode.CLOSE, Opcode.PING
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

NOT_A_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 31\r\n"
    b"connection: close\r\n\r\nThis is no WebSocket handshake."
)


class LineReader(StreamReader):
    """Reads lines of any length: PIPECAT_MAX_HEAD_BYTES has bounded the head, and frames have no lines."""

    def read_line(self, m: int, *too_long: Any) -> Generator[None, None, bytearray]:
        return super().read_line(sys.maxsize, *too_long)


class WebSocketProtocol(ServerProtocol):
    def parse(self) -> Generator[None, None, None]:
        self.reader = LineReader()
        yield from super().parse()


class WebSocketConnection(asyncio.Protocol):
    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, connections: Connections
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._connections = connections
        self._buffer_budget = connections.buffer_budget.lease()
        self._loop = asyncio.get_running_loop()
        # No extensions: compressed messages take more memory than their size shows, and audio gains nothing.
        self._protocol = WebSocketProtocol(max_size=config.ws_max_size, logger=_logger())
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._reader: BoundedReader = cast(BoundedReader, None)
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._response: Response = cast(Response, None)
        self._denial: Message | None = None
        self._fragments: list[bytes] = []
        self._held_bytes = 0  # bytes of complete large messages that wait for the application
        self._is_text = False
        self._rate_limit = RateLimit(connections.limits.max_frames_per_second)
        self._received_in_turn = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_answered = False
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._ping: bytes | None = None

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._reader = BoundedReader(self._transport, self._parse)
        self._server_state.connections.add(cast(Any, self))
        self._timer = self._loop.call_later(self._connections.limits.head_timeout, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server_state.connections.discard(cast(Any, self))
        self._reader.stop()
        self._finish(ABNORMAL)
        self._buffer_budget.close()
        self._stop_timer()
        self._reader.stop_write_timeout()

    def begin(self, head: h11.Request, early: bytes) -> None:
        """Take over from the HTTP connection that has read the head, and the bytes after it."""
        lines = [
            head.method + b" " + head.target + b" HTTP/1.1",
            *(name + b": " + value for name, value in head.headers),
        ]
        self.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + early)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._reader.start_write_timeout(self._connections.limits.body_timeout)

    def resume_writing(self) -> None:
        self._reader.stop_write_timeout()
        self._writable.set()
        self._reader.release("pongs")

    @property
    def has_received_close(self) -> bool:
        return self._protocol.close_rcvd is not None

    def shutdown(self) -> None:
        if not self._is_answered:
            self._respond(self._protocol.reject(500, "Internal Server Error"))
        elif not self._is_over:
            self._close(SERVICE_RESTART)
            self._finish(SERVICE_RESTART)
        self._reader.close_with_deadline()

    # Input.

    def _parse(self, piece: bytes) -> None:
        if not self._buffer_budget.add(len(piece)):
            self._fail(TRY_AGAIN_LATER, "unfinished messages fill PIPECAT_MAX_UNFINISHED_BYTES")
            return
        self._ping = None  # not only a pong shows that the peer is there
        self._protocol.receive_data(piece)
        frames = 0
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                frames += 1
                self._on_frame(event)
            elif isinstance(event, Request):
                self._on_handshake(event)
        if frames and not self._fragments:
            self._buffer_budget.keep(self._held_bytes)
        if self._protocol.handshake_exc is not None and not self._is_answered:
            self._on_no_handshake()
        elif self._protocol.parser_exc is not None:
            self._on_broken()
        elif not self._rate_limit.take(frames):
            self._fail(POLICY_VIOLATION, "too many frames")

    def _on_no_handshake(self) -> None:
        """Answer valid HTTP that websockets rejects as a handshake."""
        self._is_answered = True
        self._transport.write(NOT_A_HANDSHAKE)
        self._finish(ABNORMAL)
        self._reader.close_gently()

    def _on_handshake(self, request: Request) -> None:
        self._stop_timer()
        self._buffer_budget.clear()
        response = self._protocol.accept(request)
        if response.status_code != 101:
            self._respond(response)
            return
        self._response = response
        self._messages.put_nowait({"type": "websocket.connect"})
        task = self._loop.create_task(self._run(self._scope(request)))
        self._server_state.tasks.add(task)
        task.add_done_callback(self._server_state.tasks.discard)

    def _on_frame(self, frame: Frame) -> None:
        if frame.opcode is CLOSE:
            self._on_close()
        elif self._is_over:
            return  # sent before the peer saw the close
        elif frame.opcode in DATA:
            self._on_data(frame)
        elif frame.opcode is PING:
            self._flush()  # the pong
            if not self._writable.is_set():
                self._reader.hold("pongs")

    def _on_data(self, frame: Frame) -> None:
        if frame.opcode is not CONTINUATION:
            self._is_text = frame.opcode is TEXT
        self._fragments.append(bytes(frame.data))
        if len(self._fragments) > MAX_FRAGMENTS:
            self._fail(POLICY_VIOLATION, "too many fragments")
        elif frame.fin:
            whole = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
            self._fragments = []
            self._on_message(whole)

    def _on_message(self, data: bytes) -> None:
        if not self._is_text:
            message: Message = {"type": "websocket.receive", "bytes": data}
        else:
            try:
                message = {"type": "websocket.receive", "text": data.decode()}
            except UnicodeDecodeError:
                self._fail(1007, "not UTF-8")
                return
        self._messages.put_nowait(message)
        # Not for each message: to pause and resume reading costs more than to parse a frame of audio.
        if self._messages.qsize() >= MAX_QUEUED_MESSAGES or len(data) > LARGE_MESSAGE_BYTES:
            self._held_bytes += len(data)
            self._reader.hold("queue")

    def _on_close(self) -> None:
        received = self._protocol.close_rcvd
        code = NO_STATUS if received is None else received.code
        self._flush()  # the answer, unless this is one
        self._finish(code, "" if received is None else received.reason)
        self._reader.close_with_deadline()

    def _on_broken(self) -> None:
        sent = self._protocol.close_sent
        self._flush()
        self._finish(ABNORMAL if sent is None else sent.code, "" if sent is None else sent.reason)
        self._reader.close_gently()

    def _fail(self, code: int, reason: str) -> None:
        self._connections.log_throttled(f"websocket {code}", f"A WebSocket was closed with {code}: {reason}")
        self._close(code, reason)
        self._finish(code, reason)
        self._reader.close_gently()

    def _finish(self, code: int, reason: str = "") -> None:
        if not self._is_over:
            self._is_over = True
            self._stop_timer()
            self._writable.set()  # a waiting send() must see the end
            self._messages.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    # Called by the application.

    async def _run(self, scope: Any) -> None:
        try:
            await self._config.loaded_app(scope, self._receive, self._send)
        except ClientDisconnected:
            pass
        except BaseException as error:
            if not isinstance(error, asyncio.CancelledError):
                logger.opt(exception=error).error(f"A WebSocket was not served: {type(error).__name__}")
            self._end_badly()
            if not isinstance(error, Exception):
                raise
        else:
            self._end_badly()

    def _end_badly(self) -> None:
        """The application has returned without closing the connection."""
        if not self._is_answered:
            self._respond(self._protocol.reject(500, "Internal Server Error"))
        elif not self._is_over:
            self._close_in_order(INTERNAL_ERROR)

    async def _receive(self) -> Message:
        if self._messages.empty():
            self._received_in_turn = 0
            if self._reader.is_scheduled:
                await asyncio.sleep(0)  # the parser runs in this turn
        else:
            self._received_in_turn += 1
            if self._received_in_turn > MAX_MESSAGES_PER_TURN:
                self._received_in_turn = 0
                await asyncio.sleep(0)
        message = await self._messages.get()
        if self._messages.empty():
            self._reader.release("queue")
            if self._held_bytes:
                self._held_bytes = 0
                self._buffer_budget.clear()
        return message

    async def _send(self, message: Message) -> None:
        if not self._writable.is_set():
            await self._writable.wait()
        kind = message["type"]
        if not self._is_answered:
            self._answer(kind, message)
        elif self._is_over:
            if kind != "websocket.close":
                raise ClientDisconnected
        elif kind == "websocket.send":
            if message.get("bytes") is not None:
                self._protocol.send_binary(message["bytes"])
            else:
                self._protocol.send_text(message["text"].encode())
            self._flush()
        elif kind == "websocket.close":
            self._close_in_order(message.get("code", 1000), message.get("reason") or "")
            await self._flushed()
        else:
            raise RuntimeError(f"{kind} after the handshake")

    async def _flushed(self) -> None:
        # In a worker, the launcher then ends the connection.
        for _ in range(MAX_FLUSH_CHECKS):
            if not self._transport.get_write_buffer_size() or self._transport.is_closing():
                return
            await asyncio.sleep(FLUSH_CHECK_INTERVAL_SECONDS)

    def _close_in_order(self, code: int, reason: str = "") -> None:
        self._close(code, reason)
        self._finish(code, reason)
        self._reader.release("queue")
        self._timer = self._loop.call_later(CLOSE_TIMEOUT_SECONDS, self._reader.close_with_deadline)

    def _answer(self, kind: str, message: Message) -> None:
        if self._is_over:
            raise ClientDisconnected
        if kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            self._respond(self._protocol.reject(403, ""))
        elif kind == "websocket.http.response.start":
            self._denial = {"status": message["status"], "headers": message.get("headers", ()), "parts": []}
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._denial["parts"].append(message.get("body", b""))
            if not message.get("more_body", False):
                self._respond(_denial(self._denial["status"], self._denial["headers"], self._denial["parts"]))
        else:
            raise RuntimeError(f"{kind} before the handshake")

    def _accept(self, message: Message) -> None:
        for name, value in message.get("headers", ()):
            self._response.headers[name.decode("latin-1")] = value.decode("latin-1")
        if message.get("subprotocol"):
            self._response.headers["Sec-WebSocket-Protocol"] = message["subprotocol"]
        self._is_answered = True
        self._protocol.send_response(self._response)
        self._flush()
        self._schedule_ping()

    def _respond(self, response: Response) -> None:
        self._is_answered = True
        self._protocol.send_response(response)
        self._flush()
        self._finish(ABNORMAL)
        self._reader.close_gently()

    def _close(self, code: int, reason: str = "") -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, _short(reason))
        self._flush()

    def _flush(self) -> None:
        data = b"".join(self._protocol.data_to_send())
        if data and not self._transport.is_closing():
            self._transport.write(data)

    def _scope(self, request: Request) -> dict[str, Any]:
        raw_path, _, query = request.path.partition("?")
        return {
            "type": "websocket",
            "asgi": {"version": self._config.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": address(self._transport.get_extra_info("sockname")),
            "client": address(self._transport.get_extra_info("peername")),
            "root_path": self._config.root_path,
            "path": self._config.root_path + unquote(raw_path),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "headers": [(n.lower().encode("latin-1"), _encoded(v)) for n, v in request.headers.raw_items()],
            "subprotocols": subprotocols(request.headers.get_all("Sec-WebSocket-Protocol")),
            "state": self._app_state.copy(),
            "extensions": {"websocket.http.response": {}},
        }

    # Keepalive.

    def _schedule_ping(self) -> None:
        interval = self._connections.limits.websocket_ping
        if interval:
            self._timer = self._loop.call_later(interval, self._send_ping)

    def _send_ping(self) -> None:
        if self._is_over or self._transport.is_closing():
            return
        self._ping = os.urandom(4)
        self._protocol.send_ping(self._ping)
        self._flush()
        self._timer = self._loop.call_later(self._connections.limits.websocket_ping, self._on_no_pong)

    def _on_no_pong(self) -> None:
        if self._ping is None or self._reader.is_held:  # the peer's input may wait until the application receives it
            self._schedule_ping()
            return
        self._close(INTERNAL_ERROR, "keepalive ping timeout")
        self._finish(INTERNAL_ERROR, "keepalive ping timeout")
        self._reader.close_with_deadline()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _encoded(value: str) -> bytes:
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:  # websockets before 17
        return value.encode("ascii", "surrogateescape")


def _denial(status: int, given: Iterable[tuple[bytes, bytes]], parts: Iterable[bytes]) -> Response:
    body = b"".join(parts)
    headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in given])
    if "content-length" not in headers:
        headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    return Response(status, HTTPStatus(status).phrase if status in set(HTTPStatus) else "", headers, body)


def _short(reason: str) -> str:
    """RFC 6455 section 5.5: a control frame has at most 125 bytes, two of them the code."""
    return reason.encode()[:MAX_REASON_BYTES].decode(errors="ignore")


def _logger() -> logging.Logger:
    # Our logs drop the request lines of this logger.
    return logging.getLogger("uvicorn.error")
