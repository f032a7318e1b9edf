"""Idle HTTP connections, which load balancers reuse."""

from __future__ import annotations

import http.client
import socket

from tests.support.launchers import Launcher, measured


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/livez")
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200


def closes(connection: http.client.HTTPConnection, *, within: float) -> bool:
    assert connection.sock is not None
    connection.sock.settimeout(within)
    try:
        return connection.sock.recv(1) == b""
    except TimeoutError:
        return False


def test_an_idle_connection_is_closed_after_the_time_that_is_set() -> None:
    with Launcher("obedient", PIPECAT_KEEP_ALIVE="1.5") as launcher:
        connection = http.client.HTTPConnection("127.0.0.1", launcher.port)
        ask(connection)
        assert not closes(connection, within=0.5)
        ask(connection)
        assert not closes(connection, within=0.7), "the time begins anew with each request"
        assert closes(connection, within=5)
        connection.close()


def test_by_default_it_outlasts_the_five_seconds_of_uvicorn_and_delays_no_stop() -> None:
    with Launcher("obedient", DRAIN_NOTICE="0") as launcher:
        connection = http.client.HTTPConnection("127.0.0.1", launcher.port)
        ask(connection)
        assert not closes(connection, within=6)
        assert connection.sock is not None
        before: socket.socket = connection.sock
        ask(connection)
        assert connection.sock is before
        with measured() as seconds:
            assert launcher.stop() == 0
            assert seconds() < 5
        connection.close()
