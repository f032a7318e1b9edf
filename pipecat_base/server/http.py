"""HTTP/1.1 with bounds: uvicorn's protocol on h11, which is told less at once and for less long."""

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

from pipecat_base.errors import LAUNCHER, HeadTooLarge, Malformed, Refusal, TooBusy, TooSlow
from pipecat_base.server import request_path
from pipecat_base.server.connections import Connections
from pipecat_base.server.flow_control import BoundedReader
from pipecat_base.server.limits import MAX_HEADERS, MAX_TRAILERS
from pipecat_base.server.paths import PROBES

UNFINISHED = (h11.IDLE, h11.SEND_BODY)
"""States of h11's in which a head or a body is awaited."""
FRAMING = (b"content-length", b"transfer-encoding")


class Parser(h11.Connection):
    """h11's, which asks what may go on and what may not.

    Args:
        check: Looks at each event; raises :class:`Refusal`.
    """

    def __init__(self, max_head: int, check: Callable[[Any], None]) -> None:
        super().__init__(h11.SERVER, max_incomplete_event_size=max_head)
        self._max_head = max_head
        self._check = check
        self.refusal: Refusal = Malformed("This is no HTTP request.")
        """Why the last event was none."""

    def start_next_cycle(self) -> None:
        """As h11's."""
        super().start_next_cycle()
        self._max_incomplete_event_size = self._max_head

    def next_event(self) -> Any:
        """As h11's.

        Raises:
            h11.RemoteProtocolError: the caller is refused; :attr:`refusal` says why.
        """
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                self._max_incomplete_event_size = MAX_TRAILERS  # and lines that begin chunks
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
    """One connection.

    Args:
        connections: Of the listener that has accepted it.
    """

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
        self._buffer_budget = connections.buffer_budget.share()
        self.conn = self._parser = Parser(self._limits.max_head, self._check)
        self._reading: BoundedReader = cast(BoundedReader, None)
        self._timer: asyncio.TimerHandle | None = None
        self._timed: object = None
        """What the timer runs for."""
        self._lines = 0
        """Of a head that is not whole."""
        self._has_body = False
        """Whether the body has begun."""
        self._is_head = False
        """Whether the last request's answer has no body."""
        self._is_excess = False
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It may be one too many."""
        super().connection_made(transport)
        self._reading = BoundedReader(transport, self._parse)
        self.transport = cast(asyncio.Transport, self._reading)
        self.flow = FlowControl(self.transport)
        self._connections.waits(self)
        self._is_excess = self._connections.is_full and not self._connections.make_room()
        self._set_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._reading.stop()
        self._forget()
        self._connections.forget(self)
        self._buffer_budget.close()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Something has come."""
        self._reading.feed(data)

    def begin(self, head: bytes) -> None:
        """The head of the first request, whole: somebody else has read it."""
        super().data_received(head)
        self._after_events()

    def give_up(self) -> None:
        """Another one needs its place."""
        self.transport.abort()

    def timeout_keep_alive_handler(self) -> None:
        """It was idle for too long."""
        self._reading.end()

    def shutdown(self) -> None:
        """The server ends."""
        if self._is_refused or self.transport.is_closing():
            return
        super().shutdown()
        if self.transport.is_closing():
            self._reading.end()

    def on_response_complete(self) -> None:
        """The next request may have begun."""
        super().on_response_complete()
        self._after_events()

    def pause_writing(self) -> None:
        """The peer does not read: it has as long for that as for a body."""
        super().pause_writing()
        self._reading.expect_reader(self._limits.body_timeout)

    def resume_writing(self) -> None:
        """The peer has read."""
        super().resume_writing()
        self._reading.note_reader()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Leave the connection to another protocol, with all that was read."""
        self._forget()
        self.connections.discard(self)
        early = self.conn.trailing_data[0] + self._reading.leave()
        transport = self._reading.transport
        lines = [event.method + b" " + event.target + b" HTTP/1.1", *(n + b": " + v for n, v in self.headers)]
        make = cast(Callable[..., Any], self.ws_protocol_class)
        protocol = make(config=self.config, server_state=self.server_state, app_state=self.app_state)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        protocol.data_received(b"\r\n".join(lines) + b"\r\n\r\n" + early)

    def _unsupported_upgrade_warning(self) -> None:
        """An upgrade to something else is served as if it had not been asked for: no news."""

    def send_400_response(self, msg: str) -> None:
        """The request is refused, whatever uvicorn calls it."""
        self._refuse(self._parser.refusal)

    def _parse(self, piece: bytes) -> None:
        if self.conn.their_state is h11.IDLE:
            self._lines += piece.count(b"\n")
        if self.conn.their_state in UNFINISHED and not self._buffer_budget.add(len(piece)):
            self._refuse(TooBusy("Too much waits here for the rest of its request (PIPECAT_MAX_UNFINISHED_BYTES)."))
            return
        super().data_received(piece)
        self._after_events()

    def _check(self, event: Any) -> None:
        if isinstance(event, h11.Request):
            self._is_head = event.method == b"HEAD"
            self._check_head(event)
            self._lines, self._has_body = 0, False
            self._buffer_budget.clear()
            self._connections.works(self)
        elif isinstance(event, h11.Data):
            self._has_body = True
        elif isinstance(event, h11.EndOfMessage):
            self._buffer_budget.clear()
            if len(event.headers) > MAX_HEADERS:
                raise _too_many_headers()
        elif event is h11.NEED_DATA and self.conn.their_state is h11.IDLE and self._lines > MAX_HEADERS + 1:
            raise _too_many_headers()

    def _check_head(self, head: h11.Request) -> None:
        names = [name for name, _ in head.headers]
        if len(names) > MAX_HEADERS:
            raise _too_many_headers()
        if all(name in names for name in FRAMING):  # RFC 9112 section 6.1: a smuggler's
            raise Malformed("Both Content-Length and Transfer-Encoding are set.")
        if b"sec-websocket-key" in names and any(name in names for name in FRAMING):
            raise Malformed("A WebSocket handshake has no body.")
        path = head.target.partition(b"?")[0]
        request_path.check(path)
        if self._is_excess and path.decode("latin-1") not in PROBES:
            raise TooBusy("There are too many connections here (PIPECAT_MAX_CONNECTIONS).")

    def _after_events(self) -> None:
        if self._is_refused or self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self.conn.their_state is h11.IDLE:
            self._connections.waits(self)
        self._set_timer()

    def _set_timer(self) -> None:
        """Time what is waited for: a head, a body's begin, its end. uvicorn has its own timer between requests."""
        state = self.conn.their_state
        is_between = state is h11.IDLE and self.timeout_keep_alive_task is not None and not self._has_begun
        timed = (state, self._has_body) if state in UNFINISHED and not is_between else None
        if timed == self._timed:
            return
        self._stop_timer()
        self._timed = timed
        limits = self._limits
        if state is h11.SEND_BODY:
            timeout = limits.body_timeout if self._has_body else min(limits.head_timeout, limits.body_timeout)
            self._timer = self.loop.call_later(timeout, self._on_slow_body)
        elif timed is not None:
            self._timer = self.loop.call_later(limits.head_timeout, self._on_slow_head)

    @property
    def _has_begun(self) -> bool:
        """A request of which the head is not whole."""
        return bool(self.conn.trailing_data[0])

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._timed = None

    def _on_slow_head(self) -> None:
        if not self._has_begun:
            self._reading.end()  # nothing was asked
        else:
            self._refuse(TooSlow("The head of this request took too long (PIPECAT_HEAD_TIMEOUT)."))

    def _on_slow_body(self) -> None:
        self._refuse(TooSlow("The body of this request took too long (PIPECAT_BODY_TIMEOUT)."))

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, unless an answer has begun, and close; the application learns that the caller is gone."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        self._forget()
        self._connections.leaves(self)
        self._connections.on_refusal(refusal)
        self._connections.tell(refusal.code, f"Refused a connection: {refusal.code}: {refusal.message}")
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
            self._reading.close_gently()
            return
        reason = HTTPStatus(refusal.status).phrase.encode()
        events = [
            h11.Response(status_code=refusal.status, headers=headers, reason=reason),
            *(() if self._is_head else (h11.Data(data=body),)),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(self.conn.send(event) or b"" for event in events))
        self._reading.close_gently()

    def _forget(self) -> None:
        self._stop_timer()
        self._reading.note_reader()
        self._unset_keepalive_if_required()
        self._connections.works(self)
        self._buffer_budget.clear()


def _too_many_headers() -> HeadTooLarge:
    return HeadTooLarge(f"The request has more than {MAX_HEADERS} headers.")
