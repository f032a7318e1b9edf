"""POST to an operator's address: what counts as taken, connections that are kept, answers without an end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pipecat_base.telemetry.http_post import MAX_ANSWER, NotTaken, PostConnection, post
from tests.support.report_sink import Sink


class Keeping(BaseHTTPRequestHandler):
    """Keeps connections open, as HTTP/1.1 does.

    Attributes:
        ends: Closes without a word after each answer, as a proxy that is restarted does.
    """

    protocol_version = "HTTP/1.1"
    answer = b""
    ends = False
    posts: list[bytes]
    connections: list[Any]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_POST(self) -> None:
        self.posts.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)
        self.close_connection = self.close_connection or self.ends

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@contextmanager
def served(**attributes: Any) -> Iterator[tuple[str, type[Keeping]]]:
    handler = type("Handler", (Keeping,), {"posts": [], "connections": [], **attributes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events", handler
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def connected(url: str) -> Iterator[PostConnection]:
    connection = PostConnection(url)
    try:
        yield connection
    finally:
        connection._http.close()


def test_a_connection_is_kept_and_an_address_has_its_query() -> None:
    with served() as (url, handler), connected(url) as connection:
        for body in (b"1", b"2", b"3"):
            connection.post(body)
        assert handler.posts == [b"1", b"2", b"3"]
        assert len(handler.connections) == 1
    with Sink() as sink:
        PostConnection(sink.url("/events?key=1")).post(b"{}")
        assert [path for path, _, _ in sink.posts] == ["/events?key=1"]


def test_what_a_kept_connection_loses_by_its_end_is_posted_again() -> None:
    with served(ends=True) as (url, handler), connected(url) as connection:
        for body in (b"1", b"2", b"3"):
            connection.post(body)
        assert handler.posts == [b"1", b"2", b"3"]


def test_an_answer_that_is_too_long_costs_no_later_post() -> None:
    with served(answer=b"x" * 3 * MAX_ANSWER) as (url, handler), connected(url) as connection:
        for body in (b"1", b"2"):
            connection.post(body)
        assert handler.posts == [b"1", b"2"]


def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    sent = 0

    def endless(self: Keeping) -> None:
        nonlocal sent
        self.send_response(200)
        self.end_headers()
        for _ in range(1000):
            try:
                self.wfile.write(b"x" * MAX_ANSWER)
            except OSError:
                break
            sent += 1
        self.close_connection = True

    with served(do_POST=endless) as (url, _):
        post(url, b"{}", {})
    assert sent < 1000


@pytest.mark.parametrize("status", [400, 404, 500])
def test_from_400_on_an_event_is_not_taken(status: int) -> None:
    with Sink(status) as sink:
        with pytest.raises(NotTaken, match=f"HTTP status {status}") as refused:
            PostConnection(sink.url()).post(b"{}")
        assert refused.value.status == status


def test_what_is_said_of_an_error_holds_no_part_of_the_address() -> None:
    for url in ("http://127.0.0.1:9/hooks/s3cr3t", "http://127.0.0.1:9/hooks/s3cr3t with blanks"):
        with pytest.raises(NotTaken) as error:
            post(url, b"{}", {})
        assert "s3cr3t" not in str(error.value)
        with pytest.raises(NotTaken) as error:
            PostConnection(url).post(b"{}")
        assert "s3cr3t" not in str(error.value)
