"""The event publisher's connection: when it is kept, and how failures are reported."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pipecat_base.http_client import NoResponse
from pipecat_base.telemetry.event_publisher import MAX_RESPONSE_BYTES, PostConnection
from tests.support.report_sink import Sink, served


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


def test_a_post_is_repeated_if_the_kept_connection_was_closed() -> None:
    with served(ends=True) as (url, handler), connected(url) as connection:
        for body in (b"1", b"2", b"3"):
            connection.post(body)
        assert handler.posts == [b"1", b"2", b"3"]


def test_a_response_that_is_too_long_costs_no_later_post() -> None:
    with served(response=b"x" * 3 * MAX_RESPONSE_BYTES) as (url, handler), connected(url) as connection:
        for body in (b"1", b"2"):
            connection.post(body)
        assert handler.posts == [b"1", b"2"]


@pytest.mark.parametrize("status", [204, 302, 400, 500])
def test_the_status_of_the_response_is_returned(status: int) -> None:
    with Sink(status) as sink:
        assert PostConnection(sink.url()).post(b"{}") == status


@pytest.mark.parametrize("path", ["s3cr3t", "s3cr3t with blanks"])
def test_an_error_holds_no_part_of_the_address(path: str) -> None:
    with pytest.raises(NoResponse) as error:
        PostConnection(f"http://127.0.0.1:9/{path}").post(b"{}")
    assert "s3cr3t" not in str(error.value)
