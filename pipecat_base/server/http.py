"""HTTP/1.1 with bounds: uvicorn's h11 protocol with limits on sizes, time and connections."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from pipecat_base import LAUNCHER
from pipecat_base.errors import HeadTooLarge, Malformed, Refusal, TooBusy, TooSlow
from pipecat_base.server import request_path
from pipecat_base.server.connections import Connections
from pipecat_base.server.flow_control import BoundedReader
from pipecat_base.server.limits import MAX_HEADERS, MAX_TRAILER_BYTES
from pipecat_base.server.paths import PROBES

UNFINISHED = (h11.IDLE, h11.SEND_BODY)
FRAMING = (b"content-length", b"transfer-encoding")


class Parser(h11.Connection):
    def __init__(self, max_head: int, check: Callable[[Any], None]) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head)
        self._max_head = max_head
        self._check = check
        self.refusal: Refusal = Malformed("Not an HTTP request.")
        """Reason for the last ``RemoteProtocolError``."""

    def start_next_cycle(self) -> None:
        super().start_next_cycle()
        self._max_incomplete_event_size = self._max_head

    def next_event(self) -> Any:
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._max_incomplete_event_size = MAX_TRAILER_BYTES  # limits chunk headers too
            self._check(event)
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == HeadTooLarge.status:
                self.refusal = HeadTooLarge("The head of this request is too large (PIPECAT_MAX_HEAD_BYTES).")
            raise
        except Refusal as refusal:
            self.refusal = refusal
            raise h11.RemoteProtocolError(refusal.message, refusal.status) from None
        return event


class HttpConnection(H11Protocol):
    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        connections: Connections,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._connections = connections
        self._limits = connections.limits
        self._buffer_budget = connections.buffer_budget.lease()
        self.conn = self._parser = Parser(self._limits.max_head_bytes, self._check)
        self._reader: BoundedReader = cast(BoundedReader, None)
        self._timer: asyncio.TimerHandle | None = None
        self._timer_state: object = None
        """Parser state that the timer was set for."""
        self._lines = 0
        self._has_body = False
        self._is_head = False
        """True when the last request was a HEAD: its answer has no body."""
        self._is_excess = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = BoundedReader(transport, self._parse)
        self.transport = cast(asyncio.Transport, self._reader)
        self.flow = FlowControl(self.transport)
        self._connections.mark_idle(self)
        self._is_excess = self._connections.is_full and not self._connections.evict()
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.stop()
        self._release()
        self._connections.remove(self)
        self._buffer_budget.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def abort(self) -> None:
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        self._reader.close_with_deadline()

    def shutdown(self) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        super().shutdown()
        if self.transport.is_closing():
            self._reader.close_with_deadline()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._after_events()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.start_write_timeout(self._limits.body_timeout)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.stop_write_timeout()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._release()
        self.connections.discard(self)
        early = self.conn.trailing_data[0] + self._reader.detach()
        transport = self._reader.transport
        make = cast(Callable[..., Any], self.ws_protocol_class)
        protocol = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.begin(event, early)

    def _unsupported_upgrade_warning(self) -> None:
        pass

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._parser.refusal)

    def _parse(self, piece: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._lines += piece.count(b"\n")
        if self.conn.their_state in UNFINISHED and not self._buffer_budget.add(len(piece)):
            self._refuse(TooBusy("Unfinished requests fill PIPECAT_MAX_UNFINISHED_BYTES; retry."))
            return
        super().data_received(piece)
        self._after_events()

    def _check(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._is_head = event.method == b"HEAD"
            self._check_head(event)
            self._lines, self._has_body = 0, False
            self._buffer_budget.clear()
            self._connections.mark_busy(self)
        elif isinstance(event, h11.Data):
            self._has_body = True
        elif isinstance(event, h11.EndOfMessage):
            self._buffer_budget.clear()
            if len(event.headers) > self._connections.max_headers:
                raise _too_many_headers()
        elif (
            event is h11.NEED_DATA
            and self.conn.their_state is h11.IDLE
            and self._lines > self._connections.max_headers + 1
        ):
            raise _too_many_headers()

    def _check_head(self, head: h11.Request) -> None:
        names = [name for name, _ in head.headers]
        if len(names) > self._connections.max_headers:
            raise _too_many_headers()
        if all(name in names for name in FRAMING):  # request smuggling, RFC 9112 section 6.1
            raise Malformed("Both Content-Length and Transfer-Encoding are set.")
        if b"sec-websocket-key" in names and any(name in names for name in FRAMING):
            raise Malformed("A WebSocket handshake has no body.")
        path = head.target.partition(b"?")[0]
        request_path.check(path)
        if self._is_excess and path.decode("latin-1") not in PROBES:
            raise TooBusy("Too many connections (PIPECAT_MAX_CONNECTIONS).")

    def _after_events(self) -> None:
        if self._is_refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self.conn.their_state is h11.IDLE:
            self._connections.mark_idle(self)
        self._set_timer()

    def _set_timer(self) -> None:
        """Time the head, the start of the body, or its end. uvicorn times idle connections itself."""
        state = self.conn.their_state
        is_between = state is h11.IDLE and self.timeout_keep_alive_task is not None and not self._has_begun
        timer_state = (state, self._has_body) if state in UNFINISHED and not is_between else None
        if timer_state == self._timer_state:
            return
        self._stop_timer()
        self._timer_state = timer_state
        limits = self._limits
        if state is h11.SEND_BODY:
            timeout = limits.body_timeout if self._has_body else min(limits.head_timeout, limits.body_timeout)
            self._timer = self.loop.call_later(timeout, self._on_slow_body)
        elif timer_state is not None:
            self._timer = self.loop.call_later(limits.head_timeout, self._on_slow_head)

    @property
    def _has_begun(self) -> bool:
        return bool(self.conn.trailing_data[0])

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timer_state = None

    def _on_slow_head(self) -> None:
        if not self._has_begun:
            self._reader.close_with_deadline()  # no request has begun
        else:
            self._refuse(TooSlow("The head of this request took too long (PIPECAT_HEAD_TIMEOUT)."))

    def _on_slow_body(self) -> None:
        self._refuse(TooSlow("The body of this request took too long (PIPECAT_BODY_TIMEOUT)."))

    def _refuse(self, refusal: Refusal) -> None:
        """Send the refusal unless a response has begun, and close; the application sees a disconnect."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._release()
        self._connections.mark_refused(self)
        self._connections.on_refusal(refusal)
        self._connections.log_throttled(refusal.code, f"Refused a connection: {refusal.code}: {refusal.message}")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps(refusal.body()).encode()
        headers = [
            ("content-type", "application/json"),
            ("content-length", str(len(body))),
            ("connection", "close"),
            *refusal.headers(LAUNCHER).items(),
        ]
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # an answer has begun
            self._reader.close_gently()
            return
        reason = HTTPStatus(refusal.status).phrase.encode()
        events = [
            h11.Response(status_code=refusal.status, headers=headers, reason=reason),
            *(() if self._is_head else (h11.Data(data=body),)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self._reader.close_gently()

    def _release(self) -> None:
        self._stop_timer()
        self._reader.stop_write_timeout()
        self._unset_keepalive_if_required()
        self._connections.mark_busy(self)
        self._buffer_budget.clear()


def _too_many_headers() -> HeadTooLarge:
    return HeadTooLarge(f"The request has more than {MAX_HEADERS} headers.")
