"""WebSockets with bounds: the protocol is websockets' own, without its input and output; this is what is around it.

A frame too many costs its sender the connection (close code 1008), not the others a pause.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

from starlette.types import Message
from uvicorn import Config
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.server import ServerState
from websockets.datastructures import Headers
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol

from pipecat_base.logs.logger import logger
from pipecat_base.server.connections import Connections
from pipecat_base.server.flow_control import BoundedReader

BURST = 10
"""Seconds of its average rate that a peer may send at once: a file, or what a stalled network has kept back."""
MAX_FRAGMENTS = 1024
"""Frames of one message."""
MAX_QUEUED = 8
"""Messages that wait for the application; then reading pauses."""
LARGE_MESSAGE = 64 * 1024
"""Bytes from which on one is enough for that."""
MAX_EARLY = 8
"""Messages that are given out without a turn for anybody else."""
MAX_REASON = 123
"""Bytes."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a peer gets to answer a close."""
POLICY_VIOLATION, TRY_AGAIN_LATER, ABNORMAL, INTERNAL_ERROR = 1008, 1013, 1006, 1011
SERVICE_RESTART, NO_STATUS = 1012, 1005
CLOSES = {
    1002: "the peer broke the WebSocket protocol",
    1007: "a text message that is not UTF-8",
    1008: "more frames than `PIPECAT_MAX_FRAMES_PER_SECOND`, or more than 1024 frames in one message",
    1009: "a message of more than 16 MiB",
    1011: "the peer did not answer a ping within 20 seconds, or the WebSocket could not be served",
    1012: "the launcher ended before the session could close it",
    1013: "unfinished requests and messages fill `PIPECAT_MAX_UNFINISHED_BYTES`; retry",
}
"""Codes with which a connection is closed, whatever its session says (docs/reference/errors.md)."""


# Not looked up for every frame: before Python 3.12 each look at an enum is a call.
CONTINUATION, TEXT, CLOSE, PING = Opcode.CONT, Opcode.TEXT, Opcode.CLOSE, Opcode.PING
DATA = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)

NO_HANDSHAKE = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 31\r\n"
    b"connection: close\r\n\r\nThis is no WebSocket handshake."
)


class WebSocketConnection(asyncio.Protocol):
    """One connection. Given to uvicorn as ``ws``.

    Args:
        connections: Of the listener that has accepted it.
    """

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], *, connections: Connections
    ) -> None:
        self._config = config
        self._server_state = server_state
        self._app_state = app_state
        self._connections = connections
        self._buffer_budget = connections.buffer_budget.share()
        self._loop = asyncio.get_running_loop()
        # No extensions: what is compressed takes more memory than it shows, and audio gains nothing.
        self._protocol = ServerProtocol(max_size=config.ws_max_size, logger=_logger())
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._reading: BoundedReader = cast(BoundedReader, None)
        self._messages: asyncio.Queue[Message] = asyncio.Queue()
        self._response: Response = cast(Response, None)
        """To the handshake, should the application accept it."""
        self._denial: Message | None = None
        self._fragments: list[bytes] = []
        self._untaken = 0
        """Bytes of large messages that have come whole, and wait for the application."""
        self._is_text = False
        self._allowed = BURST * connections.limits.frame_rate
        """Frames that may come now."""
        self._counted_at = self._loop.time()
        self._given_out = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_answered = False
        self._is_over = False
        """Closed by either side, or lost."""
        self._timer: asyncio.TimerHandle | None = None
        """For the handshake, for a pong, for the answer to a close."""
        self._ping: bytes | None = None

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection, as the HTTP protocol leaves it."""
        self._transport = cast(asyncio.Transport, transport)
        self._reading = BoundedReader(self._transport, self._parse)
        self._server_state.connections.add(cast(Any, self))
        self._timer = self._loop.call_later(self._connections.limits.head_timeout, self._transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """The peer is gone, or this end is closed."""
        self._server_state.connections.discard(cast(Any, self))
        self._reading.stop()
        self._finish(ABNORMAL)
        self._buffer_budget.close()
        self._stop_timer()
        self._reading.note_reader()

    def data_received(self, data: bytes) -> None:
        """Something has come: the head of the handshake first, whole."""
        self._reading.feed(data)

    def eof_received(self) -> None:
        """The transport closes by itself."""

    def pause_writing(self) -> None:
        """The peer does not read: it has as long for that as for a body."""
        self._writable.clear()
        self._reading.expect_reader(self._connections.limits.body_timeout)

    def resume_writing(self) -> None:
        """It does again."""
        self._reading.note_reader()
        self._writable.set()
        self._reading.release("pongs")

    def shutdown(self) -> None:
        """The server ends."""
        if not self._is_answered:
            self._respond(self._protocol.reject(500, "Internal Server Error"))
        elif not self._is_over:
            self._close(SERVICE_RESTART)
            self._finish(SERVICE_RESTART)
        self._reading.end()

    # What comes.

    def _parse(self, piece: bytes) -> None:
        if not self._buffer_budget.add(len(piece)):
            self._fail(TRY_AGAIN_LATER, "too much waits here for the rest of its message")
            return
        self._protocol.receive_data(piece)
        frames = 0
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                frames += 1
                self._on_frame(event)
            elif isinstance(event, Request):
                self._on_handshake(event)
        if frames and not self._fragments:
            self._buffer_budget.keep(self._untaken)
        if self._protocol.handshake_exc is not None and not self._is_answered:
            self._on_no_handshake()
        elif self._protocol.parser_exc is not None:
            self._on_broken()
        elif not self._may_send(frames):
            self._fail(POLICY_VIOLATION, "too many frames")

    def _may_send(self, frames: int) -> bool:
        now = self._loop.time()
        rate = self._connections.limits.frame_rate
        self._allowed = min(BURST * rate, self._allowed + (now - self._counted_at) * rate) - frames
        self._counted_at = now
        return self._allowed >= 0

    def _on_no_handshake(self) -> None:
        """What websockets does not take for one, though it was HTTP."""
        self._is_answered = True
        self._transport.write(NO_HANDSHAKE)
        self._finish(ABNORMAL)
        self._reading.close_gently()

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
            return  # sent before the peer knew
        elif frame.opcode in DATA:
            self._on_data(frame)
        elif frame.opcode is PING:
            self._flush()  # the pong
            if not self._writable.is_set():
                self._reading.hold("pongs")
        elif bytes(frame.data) == self._ping:
            self._ping = None  # answered

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
        # Not for each: a call's audio is taken as it comes, and to pause and resume costs more than to parse it.
        if self._messages.qsize() >= MAX_QUEUED or len(data) > LARGE_MESSAGE:
            self._untaken += len(data)
            self._reading.hold("queue")

    def _on_close(self) -> None:
        received = self._protocol.close_rcvd
        code = NO_STATUS if received is None else received.code
        self._flush()  # the answer, unless this is one
        self._finish(code, "" if received is None else received.reason)
        self._reading.end()

    def _on_broken(self) -> None:
        """What came is no WebSocket's, or too large; websockets has made the close frame."""
        sent = self._protocol.close_sent
        self._flush()
        self._finish(ABNORMAL if sent is None else sent.code, "" if sent is None else sent.reason)
        self._reading.close_gently()

    def _fail(self, code: int, reason: str) -> None:
        """Close it, whatever else was to come."""
        self._connections.tell(f"websocket {code}", f"A WebSocket was closed with {code}: {reason}")
        self._close(code, reason)
        self._finish(code, reason)
        self._reading.close_gently()

    def _finish(self, code: int, reason: str = "") -> None:
        """The application learns of the end, once."""
        if not self._is_over:
            self._is_over = True
            self._stop_timer()
            self._writable.set()  # whoever waits for that learns of the end
            self._messages.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})

    # The application's side.

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
        """The application has ended without an end of the connection."""
        if not self._is_answered:
            self._respond(self._protocol.reject(500, "Internal Server Error"))
        elif not self._is_over:
            self._close_in_order(INTERNAL_ERROR)

    async def _receive(self) -> Message:
        if self._messages.empty():
            self._given_out = 0
            if self._reading.goes_on:
                await asyncio.sleep(0)  # the parser runs in this turn: one serves both
        else:
            self._given_out += 1
            if self._given_out > MAX_EARLY:
                self._given_out = 0
                await asyncio.sleep(0)
        message = await self._messages.get()
        if self._messages.empty():
            self._reading.release("queue")
            if self._untaken:
                self._untaken = 0
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
        else:
            raise RuntimeError(f"{kind} after the handshake")

    def _close_in_order(self, code: int, reason: str = "") -> None:
        """Close, and see the peer's answer."""
        self._close(code, reason)
        self._finish(code, reason)
        self._reading.release("queue")
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self._reading.end)

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
        """Refuse the handshake."""
        self._is_answered = True
        self._protocol.send_response(response)
        self._flush()
        self._finish(ABNORMAL)
        self._reading.close_gently()

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

    # Whether the peer is there.

    def _schedule_ping(self) -> None:
        interval = self._config.ws_ping_interval
        if interval:
            self._timer = self._loop.call_later(interval, self._send_ping)

    def _send_ping(self) -> None:
        if self._is_over or self._transport.is_closing():
            return
        self._ping = os.urandom(4)
        self._protocol.send_ping(self._ping)
        self._flush()
        if self._config.ws_ping_timeout:
            self._timer = self._loop.call_later(self._config.ws_ping_timeout, self._on_no_pong)
        else:
            self._schedule_ping()

    def _on_no_pong(self) -> None:
        if self._ping is None:
            self._schedule_ping()
            return
        self._close(INTERNAL_ERROR, "keepalive ping timeout")
        self._finish(INTERNAL_ERROR, "keepalive ping timeout")
        self._reading.end()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def address(name: Any) -> tuple[str, int] | None:
    """Host and port of a socket's name; None of one that has none."""
    return (str(name[0]), int(name[1])) if isinstance(name, tuple) and len(name) >= 2 else None


def subprotocols(values: Iterable[str]) -> list[str]:
    """Those that ``Sec-WebSocket-Protocol`` headers offer."""
    return [part.strip() for value in values for part in value.split(",")]


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
    return reason.encode()[:MAX_REASON].decode(errors="ignore")


def _logger() -> logging.Logger:
    # Whose request lines our logs keep back.
    return logging.getLogger("uvicorn.error")
