"""Requests of the launcher to a worker, which may answer anything."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from pipecat_base.auth.internal_headers import TOKEN_HEADER
from pipecat_base.errors import Malformed, NoOffer, NotReached, Refusal, UnknownSession
from pipecat_base.workers import http_proxy, websocket_handoff
from pipecat_base.workers.http_proxy import MAX_ANSWER_BYTES
from pipecat_base.workers.ipc.messages import Serve
from tests.support.workers import HandedOver


def asked(answer: Callable[[HandedOver], Awaitable[None]], content: Any = None, *, within: float = 5) -> Any:
    async def scene() -> Any:
        ours, workers = socket.socketpair()
        workers.setblocking(False)
        with workers:
            asking = asyncio.ensure_future(http_proxy.ask(ours, "POST", "/sessions", content))
            async with asyncio.timeout(within):
                await answer(HandedOver(Serve(), workers))
                return (await asking).result()

    return asyncio.run(scene())


def answering(content: Any, status: int = 200) -> Callable[[HandedOver], Awaitable[None]]:
    async def answer(handed: HandedOver) -> None:
        await handed.read()
        await handed.answer(content, status)

    return answer


def raw(answer: bytes) -> Callable[[HandedOver], Awaitable[None]]:
    async def send(handed: HandedOver) -> None:
        await handed.read()
        await asyncio.get_running_loop().sock_sendall(handed.sock, answer)
        handed.sock.close()

    return send


@pytest.mark.parametrize("content", [None, {}, {"ready": True}, ["a"], "ü", 5])
def test_the_answer_is_the_json_of_the_response(content: Any) -> None:
    assert asked(answering(content)) == content


@pytest.mark.parametrize("content", [None, {"a": "ü"}, {"a": ["x" * 100] * 3000}])
def test_the_request_carries_the_content_as_json_and_says_how_long_it_is(content: Any) -> None:
    async def check(handed: HandedOver) -> None:
        request, body = await handed.read()
        assert (request.method, request.target) == (b"POST", b"/sessions")
        assert (b"content-length", str(len(body)).encode()) in list(request.headers)
        assert body == b"" if content is None else json.loads(body) == content
        await handed.answer({})

    asked(check, content)


@pytest.mark.parametrize(
    "refusal",
    [UnknownSession("s"), Malformed("No such body.", field="body"), NoOffer("None came.", session_id="s")],
)
def test_a_refusal_of_the_worker_is_raised_as_it_was(refusal: Refusal) -> None:
    with pytest.raises(type(refusal)) as raised:
        asked(answering(refusal.body(), refusal.status))
    assert raised.value.body() == refusal.body()


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (500, b"Internal Server Error"),
        (500, b""),
        (400, {"error": "malformed"}),
        (400, {"error": {"code": "unheard_of"}}),
        (404, {"detail": "Not Found"}),
        (503, []),
        (500, b"[" * 100_000),
        (500, b"\xff"),
    ],
)
def test_an_error_that_is_no_refusal_is_a_failure_of_the_process(status: int, content: Any) -> None:
    with pytest.raises(NotReached, match="failed"):
        asked(answering(content, status))


HEADERS = [(b"x-daily-session-id", b"s"), (TOKEN_HEADER.encode(), b"secret"), (b"host", b"a"), (b"x-a", b"b")]


def test_the_token_of_the_gateway_reaches_no_worker_over_http() -> None:
    scope = {"method": "GET", "path": "/own", "query_string": b"a=b", "headers": HEADERS}

    async def scene() -> tuple[bytes, list[tuple[bytes, bytes]]]:
        ours, workers = socket.socketpair()
        workers.setblocking(False)
        messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

        async def receive() -> Any:
            return next(messages, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None: ...

        with workers:
            forwarding = asyncio.ensure_future(http_proxy.forward(ours, scope, receive, send))
            handed = HandedOver(Serve(), workers)
            request, _ = await asyncio.wait_for(handed.read(), 5)
            await handed.answer({})
            await forwarding
        return bytes(request.target), sorted(request.headers)

    target, headers = asyncio.run(scene())
    assert target == b"/own?a=b"
    assert headers == [(b"host", b"a"), (b"x-a", b"b"), (b"x-daily-session-id", b"s")]


def test_the_token_of_the_gateway_reaches_no_worker_in_the_head_of_a_websocket() -> None:
    head = websocket_handoff._request({"path": "/ws", "query_string": b"a=b", "headers": HEADERS})
    assert head == b"GET /ws?a=b HTTP/1.1\r\nx-daily-session-id: s\r\nhost: a\r\nx-a: b\r\n\r\n"


@pytest.mark.parametrize("content", [b"", b"OK", b"[" * 100_000, b"\xff", b"{"])
def test_an_answer_that_is_not_json_is_nothing(content: bytes) -> None:
    assert asked(answering(content)) is None


def test_an_answer_that_is_too_long_is_refused_before_it_is_read_whole() -> None:
    async def flood(handed: HandedOver) -> None:
        await handed.read()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(handed.sock, b"HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n")
        with pytest.raises(OSError, match=r"pipe|reset"):
            while True:
                await loop.sock_sendall(handed.sock, b"10000\r\n" + b" " * 0x10000 + b"\r\n")

    with pytest.raises(NotReached, match="too long"):
        asked(flood)
    assert asked(answering(b'"' + b"x" * (MAX_ANSWER_BYTES - 2) + b'"')) == "x" * (MAX_ANSWER_BYTES - 2)


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 20", b"not HTTP at all\r\n\r\n", b"HTTP/1.1 200 x\r\ncontent-length: no\r\n\r\n"],
)
def test_a_connection_that_ends_before_a_response_is_not_reached(answer: bytes) -> None:
    with pytest.raises(NotReached):
        asked(raw(answer))


def test_an_interim_response_is_not_the_answer() -> None:
    assert asked(raw(b"HTTP/1.1 103 x\r\n\r\nHTTP/1.1 200 x\r\ncontent-length: 2\r\n\r\n{}")) == {}


@pytest.mark.parametrize("answer", [b"content-length: 9\r\n\r\n{}", b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"])
def test_a_response_that_breaks_off_is_not_reached(answer: bytes) -> None:
    with pytest.raises(NotReached):
        asked(raw(b"HTTP/1.1 200 x\r\n" + answer))
