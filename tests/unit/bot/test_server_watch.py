"""Which servers calls use, with probes of the test's own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from pipecat.transports.smallwebrtc.connection import IceServer

from pipecat_base.bot.webrtc.ice import IceServers
from pipecat_base.bot.webrtc.probe import ProbeFailed
from pipecat_base.bot.webrtc.server_watch import AnsweringServers, Probe
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import PUBLIC_STUN

STUN, OTHER, TURN = IceServer(urls="stun:a:1"), IceServer(urls="stun:b:1"), IceServer(urls="turn:c:1")


class Network:
    """Servers by their URLs: they answer, are ``down``, or ``hang``."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.hanging: set[str] = set()
        self.released = threading.Event()
        self.asked: list[str] = []

    def probe(self, server: IceServer, timeout: float) -> str:
        self.asked.append(server.urls)
        if server.urls in self.hanging:
            self.released.wait(10)
        if server.urls in self.down:
            raise ProbeFailed(f"{server.urls} does not answer", "Start it.")
        return "answers"


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    yield network
    network.released.set()


@pytest.fixture
def lines() -> Iterator[list[str]]:
    found: list[str] = []
    sink = logger.add(lambda message: found.append(str(message).strip()), format="{level} {message}", level="DEBUG")
    yield found
    logger.remove(sink)


def run(probe: Probe, main: Callable[[AnsweringServers], Coroutine[Any, Any, None]], *, interval: float = 10) -> None:
    async def scenario() -> None:
        servers = AnsweringServers(0.2, probe=probe, interval=interval)
        try:
            await main(servers)
        finally:
            servers.close()

    asyncio.run(scenario())


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


def test_calls_use_servers_that_answer_and_the_others_are_named_once(network: Network, lines: list[str]) -> None:
    network.down = {STUN.urls}

    async def main(servers: AnsweringServers) -> None:
        for _ in range(3):
            assert await servers.choose([STUN, OTHER, TURN], timeout=1) == [OTHER, TURN]

    run(network.probe, main)
    assert sorted(network.asked) == ["stun:a:1", "stun:b:1", "turn:c:1"]
    assert lines == ["WARNING stun:a:1 does not answer; calls go without it until it does. Start it."]


def test_the_default_server_that_does_not_answer_is_no_warning(network: Network, lines: list[str]) -> None:
    network.down = {PUBLIC_STUN}

    async def main(servers: AnsweringServers) -> None:
        assert await servers.choose([IceServer(urls=PUBLIC_STUN)], timeout=1) == []

    run(network.probe, main)
    assert lines == [f"INFO {PUBLIC_STUN} does not answer; calls go without it until it does. Start it."]


def test_only_calls_in_the_first_moment_wait_for_a_probe_that_hangs(network: Network) -> None:
    network.hanging = {STUN.urls}

    async def main(servers: AnsweringServers) -> None:
        waits = []
        for _ in range(3):
            began = time.monotonic()
            assert await servers.choose([STUN, OTHER], timeout=5) == [OTHER]
            waits.append(time.monotonic() - began)
        assert 0.15 < waits[0] < 1
        assert max(waits[1:]) < 0.1
        network.released.set()
        async with asyncio.timeout(5):
            while await servers.choose([STUN, OTHER], timeout=5) != [STUN, OTHER]:
                await asyncio.sleep(0.01)

    run(network.probe, main)


def test_a_server_that_comes_back_is_used_without_any_call(network: Network, lines: list[str]) -> None:
    network.down = {STUN.urls}

    async def main(servers: AnsweringServers) -> None:
        assert await servers.choose([STUN], timeout=1) == []
        await until(lambda: len(network.asked) == 3)
        network.down.clear()
        await until(lambda: "INFO stun:a:1 answers again; calls use it" in lines)
        assert await servers.choose([STUN], timeout=1) == [STUN]

    run(network.probe, main, interval=0.05)
    assert len(lines) == 2


def test_a_server_that_falls_silent_is_noticed_by_calls_and_not_asked_without_them(
    network: Network, lines: list[str]
) -> None:
    async def main(servers: AnsweringServers) -> None:
        servers.watch([STUN])
        await until(lambda: network.asked)
        await asyncio.sleep(0.2)
        assert len(network.asked) == 1
        network.down = {STUN.urls}
        assert await servers.choose([STUN], timeout=1) == [STUN]
        await until(lambda: lines)
        assert await servers.choose([STUN], timeout=1) == []

    run(network.probe, main, interval=0.05)


def test_a_list_that_changes_has_its_new_servers_probed_with_the_newest_credentials() -> None:
    seen: list[tuple[str, str | None]] = []

    def probe(server: IceServer, timeout: float) -> str:
        seen.append((server.urls, server.credential))
        raise ProbeFailed("no", "no")

    async def main(servers: AnsweringServers) -> None:
        await servers.choose([IceServer(urls="turn:c:1", credential="old")], timeout=1)
        await servers.choose([IceServer(urls="turn:c:1", credential="new"), OTHER], timeout=1)
        await until(lambda: ("turn:c:1", "new") in seen)
        await servers.choose([OTHER], timeout=1)
        seen.clear()
        await until(lambda: len(seen) > 2)
        assert {url for url, _ in seen} == {OTHER.urls}

    run(probe, main, interval=0.05)


def test_what_aiortc_never_asks_is_not_probed(network: Network) -> None:
    others = [IceServer(urls=url) for url in ("stuns:a:1", "turns:a:1?transport=udp", "turn:a:1?transport=sctp")]

    async def main(servers: AnsweringServers) -> None:
        assert await servers.choose(others, timeout=1) == others

    run(network.probe, main)
    assert network.asked == []


def test_clients_get_all_servers_and_another_process_its_own_list(network: Network) -> None:
    network.down = {STUN.urls}

    async def main(answering: AnsweringServers) -> None:
        servers = IceServers("stun:a:1,stun:b:1", None, answering=answering)
        assert [server.urls for server in await servers.get()] == ["stun:a:1", "stun:b:1"]
        assert [server.urls for server in await servers.answering()] == ["stun:b:1"]
        network.asked.clear()
        given = IceServers("stun:a:1", None, answering=answering, given=lambda: [{"urls": "stun:x:1"}])
        assert [server.urls for server in await given.answering()] == ["stun:x:1"]
        assert network.asked == []

    run(network.probe, main)


def test_a_probe_that_fails_otherwise_is_a_server_that_does_not_answer(lines: list[str]) -> None:
    def broken(server: IceServer, timeout: float) -> str:
        raise RuntimeError("s3cr3t")

    async def main(servers: AnsweringServers) -> None:
        assert await servers.choose([STUN], timeout=1) == []

    run(broken, main)
    assert len(lines) == 1
    assert "s3cr3t" not in lines[0]
