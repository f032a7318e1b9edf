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
from pipecat_base.sessions.pod import Ask
from pipecat_base.sessions.registry import Board, Session, State
from pipecat_base.sessions.transports import OfferToCome, Transport
from pipecat_base.workers.fork_client import Nursery, Template
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import Imported
from pipecat_base.workers.limits import Limits
from pipecat_base.workers.pool import WorkerPool
from pipecat_base.workers.process import Stint, Worker

IMPORTED = Imported("bot in bot.py", "bot.py", [], None, False, False, False, [], [])


class FakeWorker:
    """Names every connection as pipecat 0.0.91 does: by a number that each process counts for itself."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Any] = []

    def tell(self, message: Any) -> None:
        self.asked.append(message)

    async def ask(self, kind: type, *fields: Any, descriptors: Sequence[int] = ()) -> Any:
        self.asked.append(fields)
        return (
            {"sdp": self.name, "type": "answer", "pc_id": "SmallWebRTCConnection#0"} if kind is messages.Offer else None
        )


def pool_of(channels: list[Channel]) -> WorkerPool:
    """One that makes no process."""
    return WorkerPool(
        Board(max_sessions=None, max_seconds=None, refusal=lambda: None),
        cast(Nursery, type("Nothing", (), {"channel": channels[0]})()),
        Template(IMPORTED, channels[1]),
        "fork",
        Limits(1, 1, 1, 1, 1, 1, None),
        shared=False,
        lines_of=lambda session_id: contextlib.nullcontext(),
        note=lambda *args: None,
    )


def test_processes_that_name_connections_alike_are_told_apart() -> None:
    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        workers = {name: FakeWorker(name) for name in ("a", "b")}
        for name, worker in workers.items():
            pool._stints[name] = Stint(cast(Worker, worker), name)
        first = await pool.offer(Ask("a", Transport.WEBRTC), {"sdp": "", "type": "offer"})
        second = await pool.offer(Ask("b", Transport.WEBRTC), {"sdp": "", "type": "offer"})
        assert first["pc_id"] != second["pc_id"]
        for answer, name in ((first, "a"), (second, "b")):
            await pool.trickle({"pc_id": answer["pc_id"], "candidates": []})
            assert workers[name].asked[-1] == ({"pc_id": "SmallWebRTCConnection#0", "candidates": []}, False)
            again = await pool.offer(Ask("?", Transport.WEBRTC), {"pc_id": answer["pc_id"], "sdp": "", "type": "offer"})
            assert (again["sdp"], again["pc_id"]) == (name, answer["pc_id"])
        with pytest.raises(UnknownPeer):
            await pool.offer(Ask("?", Transport.WEBRTC), {"pc_id": "none", "sdp": "", "type": "offer"})
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
        async with pool.reserve(Ask("s", Transport.WEBRTC)) as place:
            place._stint = stint = Stint(cast(Worker, worker), "s")
            place._waits_for_offer = True
            place._enter(State.WAITING.value)
            if has_left:
                place.caller_left()
            place._note_superseded()
            assert stint.is_left is not has_left
            assert [message for message in worker.asked if isinstance(message, messages.CallerLeft)] == (
                [messages.CallerLeft("s")] if has_left else []
            )
            place._stint = None
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

        async def ask(self, kind: type, *fields: Any, descriptors: Sequence[int] = ()) -> Any:
            await super().ask(kind, *fields)
            await self.over.wait()
            return [Outcome.DISCONNECTED.value, "", 0.0]

    async def scene() -> None:
        channels = [Channel(end) for end in socket.socketpair()]
        pool = pool_of(channels)
        stints = [Stint(cast(Worker, Waiting(name)), "s") for name in ("old", "new")]
        coming = iter(stints)

        async def take(session: Session) -> Stint:
            return next(coming)

        pool.take = take  # type: ignore[method-assign]
        pool.give_back = lambda stint: None  # type: ignore[method-assign]
        async with pool.reserve(Ask("s", Transport.WEBRTC)) as place:
            running = asyncio.ensure_future(place.run(OfferToCome(), None))
            while not stints[0].worker.asked:  # type: ignore[attr-defined]
                await asyncio.sleep(0)
            place._enter(State.WAITING.value)
            place._note_superseded()
            place.caller_left()
            report = await asyncio.wait_for(running, 5)
            assert (report.outcome, stints[0].is_left) == (Outcome.DISCONNECTED, True)
            assert stints[1].worker.asked[-1] == messages.Cancel("s", "disconnected")  # type: ignore[attr-defined]
        for channel in channels:
            channel.close()

    asyncio.run(scene())
