"""What crosses between processes and connections: messages, channels, heads of WebSockets, requests that go on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import socket
from collections.abc import Iterator
from typing import Any, cast

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn import Config
from uvicorn.server import ServerState

from pipecat_base.errors import Refusal, refusal_from, refusals
from pipecat_base.server.http import Parser
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.workers import http_proxy, websocket_handoff
from pipecat_base.workers.ipc.channel import HEAD, MAX_MESSAGE_TO_LAUNCHER_BYTES, Channel
from pipecat_base.workers.ipc.messages import EventEmitted, Message, Noted, Serve, SessionEnded, decode, encode
from pipecat_base.workers.ipc.untrusted import decode_untrusted
from tests.support.hypothesis_values import ANY_TEXT, HEADER_VALUE, JSON, fuzz, objects

pytestmark = pytest.mark.slow

NONE_OF_OURS = (ValueError, TypeError, KeyError, RecursionError)
"""What decode() may raise."""
MESSAGES = st.builds(
    lambda kind, fields: json.dumps([kind, fields]).encode(),
    st.sampled_from(sorted(Message.kinds)) | ANY_TEXT,
    objects(number=st.integers(), session_id=ANY_TEXT, head=ANY_TEXT, early=ANY_TEXT, value=JSON, urls=JSON) | JSON,
)


@fuzz
@given(MESSAGES | st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_message_or_none(content: bytes) -> None:
    try:
        message = decode(content)
    except NONE_OF_OURS:
        return
    assert isinstance(message, Message)


@fuzz
@given(MESSAGES | st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_from_a_bots_process_are_a_message_of_the_right_types_or_none(content: bytes) -> None:
    try:
        message = decode_untrusted(content, Message.kinds)
    except ValueError as error:
        assert len(str(error)) < 200
        assert str(error).isprintable()
        return
    assert type(message).max_bytes >= len(content)
    for field in dataclasses.fields(message):
        assert field.type != "str" or isinstance(getattr(message, field.name), str)


FINITE = st.recursive(
    st.none() | st.booleans() | st.integers() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)


TEXTS = st.lists(ANY_TEXT, max_size=3)
SERVES = st.builds(
    Serve,
    st.none() | st.tuples(ANY_TEXT, st.integers()).map(list),
    st.none() | st.tuples(ANY_TEXT, st.none()).map(list),
    ANY_TEXT,
    st.binary(max_size=40),
    st.binary(max_size=40),
    st.none() | ANY_TEXT,
    st.integers(),
    st.booleans(),
    st.none() | ANY_TEXT,
    st.none() | st.lists(st.dictionaries(ANY_TEXT, FINITE, max_size=2), max_size=2),
)
FROM_WORKERS = (
    st.builds(Noted, ANY_TEXT, ANY_TEXT, TEXTS)
    | st.builds(EventEmitted, st.none() | ANY_TEXT, ANY_TEXT, st.dictionaries(ANY_TEXT, FINITE), st.integers(0, 9**9))
    | st.builds(
        SessionEnded, ANY_TEXT, st.integers(), st.none() | ANY_TEXT, ANY_TEXT, st.integers(0, 9**9), st.none() | TEXTS
    )
)


@fuzz
@given(SERVES | FROM_WORKERS)
def test_a_message_comes_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@fuzz
@given(st.lists(FROM_WORKERS, min_size=1, max_size=3), st.lists(st.integers(1, 60), min_size=1))
def test_messages_come_whole_however_the_bytes_are_cut(sent: list[Message], sizes: list[int]) -> None:
    contents = [encode(message) for message in sent]
    stream = b"".join(HEAD.pack(len(content), 0) + content for content in contents)
    cuts = itertools.cycle(sizes)
    ours, theirs = Channel.pair()
    try:
        found: list[Message] = []
        while stream:
            size = next(cuts)
            theirs.sendall(stream[:size])
            stream = stream[size:]
            while ours._fill():
                pass
            found += messages_of(ours)
        assert found == sent
        assert not ours.ended
    finally:
        ours.close()
        theirs.close()


def messages_of(channel: Channel) -> Iterator[Message]:
    while (received := channel._next()) is not None:
        message, descriptors = received
        assert descriptors == []
        yield message


@fuzz
@given(st.binary(max_size=80) | st.builds(lambda n, body: HEAD.pack(n, 1) + body, st.integers(0, 2**32 - 1), MESSAGES))
def test_any_bytes_to_the_launcher_are_messages_or_its_end(content: bytes) -> None:
    ours, theirs = Channel.pair()
    try:
        theirs.sendall(content)
        theirs.shutdown(socket.SHUT_WR)
        while ours._fill():
            pass
        list(messages_of(ours))
        assert ours.ended
        assert len(ours._incoming) <= MAX_MESSAGE_TO_LAUNCHER_BYTES + HEAD.size
    finally:
        ours.close()
        theirs.close()


ENDS = st.builds(
    SessionEnded,
    ANY_TEXT,
    st.integers(),
    st.sampled_from([outcome.value for outcome in Outcome]) | ANY_TEXT,
    ANY_TEXT,
    st.floats(0, 1e9),
    st.none() | TEXTS,
    st.none() | st.lists(st.none() | ANY_TEXT, max_size=3),
)


@fuzz
@given(ENDS)
def test_an_end_of_a_session_is_a_report_or_invalid(ended: SessionEnded) -> None:
    found = decode_untrusted(encode(ended), Message.kinds)
    try:
        report = found.report()
    except ValueError:
        assert ended.outcome not in {outcome.value for outcome in Outcome}
        return
    assert (report.outcome.value, report.message, report.seconds) == (ended.outcome, ended.message, ended.seconds)


CODES = st.sampled_from([kind.code for kind in refusals()]) | ANY_TEXT
REFUSALS = objects(error=objects(code=CODES, message=ANY_TEXT, field=ANY_TEXT | st.none(), session_id=ANY_TEXT))


@fuzz
@given(REFUSALS | JSON)
def test_any_json_is_a_refusal_that_can_be_told_or_none(body: Any) -> None:
    refusal = refusal_from(body)
    if refusal is not None:
        assert isinstance(refusal, Refusal)
        assert json.dumps(refusal.body())
        assert refusal.headers("x")
        assert refusal.log_text() is not None


BREAKS_OFF = (ConnectionResetError,)
"""In the middle of a response."""
ANSWERS = st.binary(max_size=80) | st.builds(
    lambda status, content: b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%b" % (status, len(content), content),
    st.integers(100, 999),
    st.binary(max_size=40)
    | JSON.map(lambda value: json.dumps(value).encode())
    | REFUSALS.map(lambda value: json.dumps(value).encode()),
)


@fuzz
@given(ANSWERS)
def test_any_answer_to_the_launcher_is_a_value_or_a_refusal(answer: bytes) -> None:
    async def scene() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.sendall(answer)
            theirs.shutdown(socket.SHUT_WR)
            with contextlib.suppress(Refusal, *BREAKS_OFF):
                await http_proxy.ask(ours, "GET", "/readyz")

    asyncio.run(scene())


# Heads.


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None: ...

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1)


KEY = base64.b64encode(bytes(16)).decode()
GOOD = {"host": "a", "upgrade": "websocket", "connection": "upgrade", "sec-websocket-version": "13"}
HEADERS = st.dictionaries(
    st.sampled_from([*GOOD, "sec-websocket-key", "sec-websocket-protocol", "x-a", "content-length"]),
    HEADER_VALUE | st.sampled_from([KEY, "13", "8", "a, b", "", "5"]),
    max_size=6,
).map(lambda headers: {**GOOD, "sec-websocket-key": KEY, **headers})
TARGETS = st.binary(max_size=30).map(lambda raw: b"/" + bytes(b for b in raw if 0x21 <= b <= 0x7E))


def head_of(target: bytes, headers: dict[str, str]) -> bytes:
    lines = [b"GET " + target + b" HTTP/1.1", *(f"{n}: {v}".encode("latin-1") for n, v in headers.items())]
    return b"\r\n".join(lines) + b"\r\n\r\n"


@fuzz
@given(st.builds(head_of, TARGETS, HEADERS), st.binary(max_size=20))
def test_the_head_of_a_websocket_is_served_refused_or_closed(head: bytes, early: bytes) -> None:
    request = request_in(head)
    if request is None:
        return

    async def scene() -> None:
        scopes: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            scopes.append(scope)
            await send({"type": "websocket.close"})

        config = Config(app)
        config.load()
        state = ServerState()
        held, wire = websocket_handoff.WebSocketHandoff(config, state, {}), Wire()
        held.connection_made(cast(Any, wire))
        held.begin(request, early)
        await asyncio.gather(*state.tasks)
        assert wire.is_closed
        if scopes:
            assert wire.written.startswith(b"HTTP/1.1 403 ")
            same_request(scopes[0], head + early, held._early)
        else:
            assert wire.written == b"" or wire.written.startswith(b"HTTP/1.1 400 ")

    asyncio.run(scene())


def same_request(scope: Any, sent: bytes, early: bytes) -> None:
    """What is given away is what has come, the length of a body aside."""
    before, after = (parsed(data) for data in (sent, websocket_handoff._request(scope) + early))
    assert before == after


def request_in(head: bytes) -> h11.Request | None:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(head)
    with contextlib.suppress(h11.RemoteProtocolError):
        return cast(h11.Request, parser.next_event())
    return None


def parsed(data: bytes) -> tuple[Any, ...]:
    parser = h11.Connection(h11.SERVER)
    parser.receive_data(data)
    request = parser.next_event()
    assert isinstance(request, h11.Request)
    # A query of nothing is none.
    return request.method, request.target.removesuffix(b"?"), sorted(request.headers), parser.trailing_data[0]


@fuzz
@given(
    st.lists(
        st.binary(min_size=1, max_size=60)
        | st.builds(head_of, TARGETS, HEADERS)
        | st.sampled_from(
            [b"\r\n", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\n", b"x: y\r\n" * 50, b"abc"]
        ),
        max_size=6,
    )
)
def test_any_bytes_are_http_or_refused(pieces: list[bytes]) -> None:
    parser = Parser(4096, lambda event: None)
    for piece in pieces:
        try:
            parser.receive_data(piece)
            while parser.next_event() not in (h11.NEED_DATA, h11.PAUSED):
                pass
        except h11.RemoteProtocolError:
            assert parser.refusal.status in (400, 431)
            return


SCOPES = st.builds(
    lambda method, path, query, headers: {
        "type": "http",
        "method": method,
        "path": "/",
        "raw_path": path,
        "query_string": query,
        "headers": headers,
    },
    st.sampled_from(["GET", "POST", "OPTIONS"]) | st.text(st.characters(codec="ascii"), min_size=1, max_size=8),
    st.binary(max_size=20),
    st.binary(max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"connection", b"x-a"]),
            st.binary(max_size=20) | st.sampled_from([b"0", b"5", b"chunked"]),
        ),
        max_size=5,
    ),
)


@fuzz
@given(SCOPES, st.booleans())
def test_a_request_is_passed_on_as_one_or_refused(scope: Any, has_body: bool) -> None:
    try:
        request = http_proxy._request(scope, has_body=has_body)
        sent = h11.Connection(h11.CLIENT).send(request)
    except h11.LocalProtocolError:
        return
    assert sent is not None
    server = h11.Connection(h11.SERVER)
    server.receive_data(sent)
    seen = server.next_event()
    assert isinstance(seen, h11.Request)
    assert (seen.method, seen.target) == (request.method, request.target)
    assert sum(name == b"host" for name, _ in seen.headers) == 1
    assert server.trailing_data[0] == b""


def test_every_message_that_is_known_here_is_a_dataclass() -> None:
    assert all(dataclasses.is_dataclass(kind) for kind in Message.kinds.values())
