"""The metrics server: its log lines and its listener."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from pipecat_base.config.settings import ServerLimits
from pipecat_base.server.metrics_server import MAX_SCRAPE_HEAD_BYTES, MetricsServer
from tests.support.launchers import PATIENCE


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    server = MetricsServer(host, port, CollectorRegistry(), ServerLimits(), lambda app: app)
    try:
        yield server.port
    finally:
        server.close(PATIENCE)


def scrape(port: int, host: str = "127.0.0.1") -> int:
    return httpx.get(f"http://{host}:{port}/metrics", trust_env=False).status_code


def test_neither_scrapes_nor_disconnects_are_logged(capsys: pytest.CaptureFixture[str]) -> None:
    with listening() as port:
        assert scrape(port) == 200
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\nGET")
            assert sock.recv(1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
        assert scrape(port) == 200
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "head",
    [
        b"GET /metrics?name[]=%ff HTTP/1.1\r\nhost: a\r\naccept: \xff\r\naccept-encoding: \xff\r\n",
        b"GET /metrics HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n",
        b"POST /metrics HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n",
    ],
)
def test_an_odd_scrape_is_answered_as_any_other(head: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with listening() as port, socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(head + b"\r\n")
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_head_that_is_too_large_for_a_scrape_is_431() -> None:
    with listening() as port, socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(b"GET /metrics HTTP/1.1\r\nx: " + b"y" * (MAX_SCRAPE_HEAD_BYTES + 1))
        assert sock.recv(100).startswith(b"HTTP/1.1 431 ")


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
