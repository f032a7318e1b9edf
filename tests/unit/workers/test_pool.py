"""Which process a WebRTC client's messages are for, and when its session goes to another one."""

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
from pipecat_base.sessions.transports import PendingWebRTC, TransportKind
from pipecat_base.workers.fork_client import ForkClient, TemplateClient
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

    def tell(self, message: Any) -> None:
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
        cast(ForkClient, type("Nothing", (), {"channel": channels[0]})()),
        TemplateClient(IMPORTED, channels[1]),
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


@pytest.mark.parametrize("has_left", [False, True])
def test_a_session_whose_caller_has_left_goes_to_no_newer_code(has_left: bool) -> None:
    """Its process has been told; the next one would wait for an offer that nobody sends."""

    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        worker = FakeWorker("old")
        async with pool.reserve(SessionRequest("s", TransportKind.WEBRTC)) as slot:
            slot._lease = lease = WorkerLease(cast(WorkerProcess, worker), "s")
            slot._waits_for_offer = True
            slot._enter(SessionState.WAITING.value)
            if has_left:
                slot.on_disconnect()
            slot._note_superseded()
            assert lease.is_left is not has_left
            assert [message for message in worker.asked if isinstance(message, messages.CallerLeft)] == (
                [messages.CallerLeft("s")] if has_left else []
            )
            slot._lease = None
        for channel in channels:
            channel.close()

    asyncio.run(scene())


def test_a_caller_who_leaves_while_the_session_goes_to_newer_code_ends_it() -> None:
    class Waiting(FakeWorker):
        """Runs a session until it is told to end it."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self.died: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self.over = asyncio.Event()

        def tell(self, message: Any) -> None:
            super().tell(message)
            if isinstance(message, messages.Cancel):
                self.over.set()

        async def request(self, kind: type, *fields: Any, descriptors: Sequence[int] = ()) -> Any:
            await super().request(kind, *fields)
            await self.over.wait()
            return [Outcome.DISCONNECTED.value, "", 0.0]

    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        stints = [WorkerLease(cast(WorkerProcess, Waiting(name)), "s") for name in ("old", "new")]
        coming = iter(stints)

        async def take(session: Session) -> WorkerLease:
            return next(coming)

        pool.take = take  # type: ignore[method-assign]
        pool.give_back = lambda lease: None  # type: ignore[method-assign]
        async with pool.reserve(SessionRequest("s", TransportKind.WEBRTC)) as slot:
            running = asyncio.ensure_future(slot.run(PendingWebRTC(), None))
            while not stints[0].worker.asked:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            slot._enter(SessionState.WAITING.value)
            slot._note_superseded()
            slot.on_disconnect()
            report = await asyncio.wait_for(running, 5)
            assert (report.outcome, stints[0].is_left) == (Outcome.DISCONNECTED, True)
            assert stints[1].worker.asked[-1] == messages.Cancel("s", "disconnected")  # type: ignore[attr-defined]
        for channel in channels:
            channel.close()

    asyncio.run(scene())
