"""The server of the metrics: what it leaves in the log, and where it listens."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from pipecat_base.observe import scrapes
from tests.process import until


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    server = scrapes.listen(host, port, CollectorRegistry())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def scrape(port: int, host: str = "127.0.0.1") -> int:
    return httpx.get(f"http://{host}:{port}/metrics", trust_env=False).status_code


def is_answering() -> bool:
    return any("process_request" in thread.name for thread in threading.enumerate())


def test_scrapes_are_no_news_and_neither_is_a_scraper_that_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as port:
        for _ in range(2 * scrapes.MOST):
            assert scrape(port) == 200
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /metrics")
            until(is_answering, "the request to be read")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        until(lambda: not is_answering(), "the end of it")
        assert scrape(port) == 200
    assert capsys.readouterr() == ("", "")


def test_the_next_launcher_gets_the_port_at_once() -> None:
    with listening() as port:
        assert scrape(port) == 200  # the server ends that connection: the port stays in TIME_WAIT
    with listening(port=port):
        assert scrape(port) == 200


def test_it_listens_on_ipv6_too() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine lacks IPv6")
    with listening("::1") as port:
        assert scrape(port, "[::1]") == 200
