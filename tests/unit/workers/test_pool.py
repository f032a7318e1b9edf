"""Which process a WebRTC client's messages are for, and which sessions end when newer code is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from typing import Any, cast

import pytest

from pipecat_base.errors import UnknownPeer
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.registry import Session, SessionRegistry, SessionState
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.fork_client import ForkServerProcess, TemplateConnection
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import BotImported
from pipecat_base.workers.limits import WorkerLimits
from pipecat_base.workers.pool import WorkerPool
from pipecat_base.workers.process import WorkerLease, WorkerProcess

IMPORTED = BotImported("bot in bot.py", "bot.py", [], None, False, False, False, [], [])


class FakeWorker:
    """Names every connection as pipecat 0.0.91 does: by a number that each process counts for itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Any] = []

    def send(self, message: Any) -> None:
        self.asked.append(message)

    async def request(self, kind: type, *fields: Any, descriptors: Sequence[int] = ()) -> Any:
        self.asked.append(fields)
        return (
            {"sdp": self.name, "type": "answer", "pc_id": "SmallWebRTCConnection#0"}
            if kind is messages.AnswerOffer
            else None
        )


def pool_of(channels: list[Channel]) -> WorkerPool:
    """One that makes no process."""
    return WorkerPool(
        SessionRegistry(max_sessions=None, max_seconds=None, refusal=lambda: None),
        cast(ForkServerProcess, type("Nothing", (), {"channel": channels[0]})()),
        TemplateConnection(IMPORTED, channels[1]),
        "fork",
        WorkerLimits(1, 1, 1, 1, 1, 1, None),
        shared=False,
        lines_of=lambda session_id: contextlib.nullcontext(),
        emit=lambda *args: None,
    )


def test_processes_that_name_connections_alike_are_told_apart() -> None:
    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        workers = {name: FakeWorker(name) for name in ("a", "b")}
        for name, worker in workers.items():
            pool._leases[name] = WorkerLease(cast(WorkerProcess, worker), name)
        first = await pool.offer(SessionRequest("a", TransportKind.WEBRTC), {"sdp": "", "type": "offer"})
        second = await pool.offer(SessionRequest("b", TransportKind.WEBRTC), {"sdp": "", "type": "offer"})
        assert first["pc_id"] != second["pc_id"]
        for answer, name in ((first, "a"), (second, "b")):
            await pool.trickle({"pc_id": answer["pc_id"], "candidates": []})
            assert workers[name].asked[-1] == ({"pc_id": "SmallWebRTCConnection#0", "candidates": []}, False)
            again = await pool.offer(
                SessionRequest("?", TransportKind.WEBRTC), {"pc_id": answer["pc_id"], "sdp": "", "type": "offer"}
            )
            assert (again["sdp"], again["pc_id"]) == (name, answer["pc_id"])
        with pytest.raises(UnknownPeer):
            await pool.offer(SessionRequest("?", TransportKind.WEBRTC), {"pc_id": "none", "sdp": "", "type": "offer"})
        for channel in channels:
            channel.close()

    asyncio.run(scene())


@pytest.mark.parametrize("offers", [0, 1])
def test_newer_code_ends_a_session_unless_its_caller_has_come(offers: int) -> None:
    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        async with pool.reserve(SessionRequest("s", TransportKind.WEBRTC)) as slot:
            lease = pool._leases["s"] = WorkerLease(cast(WorkerProcess, FakeWorker("old")), "s")
            lease.offers = offers
            slot._on_state(SessionState.WAITING.value)
            pool._end_waiting()
            assert slot.session.stop.done() is (offers == 0)
            assert offers or slot.session.stop.result() is Outcome.DRAINED
        for channel in channels:
            channel.close()

    asyncio.run(scene())


def test_a_message_for_a_session_waits_until_that_has_a_worker() -> None:
    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        lease = WorkerLease(cast(WorkerProcess, FakeWorker("a")), "a")

        async def take_worker(session: Session) -> Any:
            return type("Worker", (), {"lease": lambda self, session_id: lease})()

        pool._take_worker = take_worker  # type: ignore[method-assign]
        async with pool.reserve(SessionRequest("a", TransportKind.WEBRTC)) as slot:
            waiting = asyncio.ensure_future(pool._lease_of("a"))
            await asyncio.sleep(0.01)
            assert not waiting.done()
            await pool.take(slot.session)
            assert await asyncio.wait_for(waiting, 1) is lease
            del pool._leases["a"]
            waiting = asyncio.ensure_future(pool._lease_of("a"))
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(waiting, 1) is None
        for channel in channels:
            channel.close()

    asyncio.run(scene())
