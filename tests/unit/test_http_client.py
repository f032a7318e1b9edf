"""Requests to other services: each ends in a response or in one exception."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipecat_base.http_client import NoResponse, send


@contextmanager
def served(response: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that sends these bytes to each client and leaves the connection open."""
    requests: list[bytes] = []
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            held.append(client)
            requests.append(client.recv(65536))
            client.sendall(response)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/path", requests
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for client in held:
            client.close()


def test_a_redirect_is_a_response_and_takes_no_key_elsewhere() -> None:
    with served(b"HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n") as (url, requests):
        response = send("POST", url, timeout=5, headers={"authorization": "Bearer key"}, content=b"{}")
    assert (response.status, response.headers["location"]) == (302, "/other")
    assert len(requests) == 1


@pytest.mark.parametrize("status", [b"200 OK", b"500 Oh"])
def test_a_body_that_never_arrives_is_no_response(status: bytes) -> None:
    head = b"HTTP/1.1 " + status + b"\r\ncontent-length: 9\r\n\r\n"
    with served(head) as (url, _), pytest.raises(NoResponse, match=r"no response within 0\.2 s"):
        send("GET", url, timeout=0.2)


def test_a_long_response_is_cut() -> None:
    with served(b"HTTP/1.1 404 No\r\ncontent-length: 100000\r\n\r\n" + b"x" * 100000) as (url, _):
        assert send("GET", url, timeout=5, max_bytes=10).content == b"x" * 10


@pytest.mark.parametrize(
    ("url", "headers"),
    [("http://127.0.0.1:1/s3cret", {}), ("http://127.0.0.1:1", {"authorization": "s3cret\nx"}), ("s3cret", {})],
)
def test_an_error_shows_nothing_that_was_sent(url: str, headers: dict[str, str]) -> None:
    with pytest.raises(NoResponse) as caught:
        send("GET", url, timeout=1, headers=headers)
    assert "s3cret" not in str(caught.value)


def test_bytes_that_are_not_http_are_no_response() -> None:
    with served(b"220 mail ready\r\n") as (url, _), pytest.raises(NoResponse):
        send("GET", url, timeout=1)
