"""Gathering of ICE candidates: its time, whatever the network."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aioice.candidate import Candidate

from pipecat_base.bot.webrtc.gathering import BoundedConnection
from tests.support.stun import StunServer

LOOPBACKS = [f"127.0.0.{number}" for number in range(1, 41)]


def gather(addresses: list[str], *, seconds: float = 0.3, **options: Any) -> tuple[float, list[Candidate]]:
    """Seconds, and the candidates."""

    async def main() -> tuple[float, list[Candidate]]:
        connection = BoundedConnection(ice_controlling=False, seconds=seconds, **options)
        began = time.monotonic()
        candidates = await connection.get_component_candidates(1, addresses)
        took = time.monotonic() - began
        await connection.close()
        return took, candidates

    return asyncio.run(main())


@pytest.mark.parametrize("kind", ["stun", "turn"])
@pytest.mark.parametrize("addresses", [LOOPBACKS[:1], LOOPBACKS])
def test_a_silent_server_takes_the_timeout_however_many_interfaces_there_are(kind: str, addresses: list[str]) -> None:
    with StunServer(loses=10**9) as silent:
        server: dict[str, Any] = {f"{kind}_server": ("127.0.0.1", silent.port)}
        if kind == "turn":
            server |= {"turn_username": "user", "turn_password": "password"}
        seconds, candidates = gather(addresses, **server)
    assert seconds < 0.6
    assert [candidate.type for candidate in candidates] == ["host"] * len(addresses)


def test_interfaces_without_a_way_out_do_not_hold_up_those_that_have_one() -> None:
    with StunServer(hosts=("127.0.0.7",)) as stun:
        seconds, candidates = gather(LOOPBACKS, seconds=5, stun_server=("127.0.0.1", stun.port))
    assert seconds < 3
    assert [candidate.related_address for candidate in candidates if candidate.type == "srflx"] == ["127.0.0.7"]


def test_an_event_loop_that_is_blocked_past_the_timeout_fails_no_gathering() -> None:
    async def main() -> list[Candidate]:
        connection = BoundedConnection(ice_controlling=False, seconds=0.2, stun_server=("127.0.0.1", stun.port))
        gathering = asyncio.ensure_future(connection.get_component_candidates(1, LOOPBACKS[:3]))
        await asyncio.sleep(0.01)
        time.sleep(0.4)
        candidates = await gathering
        await connection.close()
        return candidates

    for _ in range(5):
        with StunServer() as stun:
            assert sum(candidate.type == "host" for candidate in asyncio.run(main())) == 3


def test_every_interface_that_answers_has_its_public_address() -> None:
    with StunServer() as stun:
        _, candidates = gather(LOOPBACKS[:3], seconds=5, stun_server=("127.0.0.1", stun.port))
    public = [candidate for candidate in candidates if candidate.type == "srflx"]
    assert sorted(str(candidate.related_address) for candidate in public) == LOOPBACKS[:3]
    hosts = {candidate.port for candidate in candidates if candidate.type == "host"}
    assert {candidate.related_port for candidate in public} == hosts


def test_a_relay_is_a_candidate_too() -> None:
    with StunServer() as server:
        _, candidates = gather(
            LOOPBACKS[:1],
            seconds=5,
            turn_server=("127.0.0.1", server.port),
            turn_username=server.username,
            turn_password=server.credential,
        )
    assert [(candidate.type, candidate.host) for candidate in candidates] == [
        ("host", "127.0.0.1"),
        ("relay", "192.0.2.7"),
    ]


def test_a_name_is_resolved_once_and_within_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    async def hang(*args: object, **options: object) -> None:
        nonlocal asked
        asked += 1
        await asyncio.sleep(60)

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", hang)
    seconds, candidates = gather(LOOPBACKS, stun_server=("stun.example", 1))
    assert (seconds < 0.6, len(candidates), asked) == (True, 40, 1)


@pytest.mark.parametrize("server", [("name.invalid", 1), ("127.0.0.1", 1)])
def test_a_server_that_is_not_there_costs_nothing_but_its_candidate(server: tuple[str, int]) -> None:
    seconds, candidates = gather(["127.0.0.1", "203.0.113.1"], stun_server=server)
    assert seconds < 0.6
    assert [candidate.host for candidate in candidates] == ["127.0.0.1"]
