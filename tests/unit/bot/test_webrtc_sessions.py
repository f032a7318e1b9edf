"""Two offers of one session whose answers are ready in any order; peers that are opened when the test says so."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from pipecat_base.bot.arguments import ArgumentFactory
from pipecat_base.bot.webrtc.offers import Offer
from pipecat_base.bot.webrtc.sessions import WebRTCSessions
from pipecat_base.errors import Malformed
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.transports import UNKNOWN_CALLER, Caller
from tests.support.parts import make_sessions


class Peer:
    def __init__(self) -> None:
        self.connection = object()

    async def measure(self, emit: Any) -> None: ...

    async def emit_stats(self, emit: Any) -> None: ...

    async def wait_until_disconnected(self) -> None:
        await asyncio.Event().wait()


class Peers:
    """Opens a peer when its gate is opened; one whose SDP begins with "bad" cannot be answered."""

    def __init__(self) -> None:
        self.open_ones: dict[Peer, str] = {}
        self.gates: dict[str, asyncio.Event] = {}

    async def open(self, offer: Offer, caller: Caller) -> Peer:
        await self.gates.setdefault(offer.sdp, asyncio.Event()).wait()
        if offer.sdp.startswith("bad"):
            raise Malformed("It is bad.", field="sdp")
        peer = Peer()
        self.open_ones[peer] = offer.sdp
        return peer

    async def close(self, peer: Peer) -> None:
        self.open_ones.pop(peer, None)

    def answer(self, peer: Peer) -> dict[str, str]:
        return {"sdp": self.open_ones[peer]}


class Scene:
    """One session's offers; ``ran`` are those that the bot saw, ``ends`` those on which it returns at once."""

    def __init__(self, *ends: str) -> None:
        self.ran: list[str] = []
        self.peers = Peers()

        async def bot(args: Any) -> None:
            self.ran.append(args.body)
            if args.body not in ends:
                await asyncio.Event().wait()

        self.sessions = make_sessions(bot, cancel_grace=1)
        arguments = ArgumentFactory(wants_cloud=False)
        self.calls = WebRTCSessions(
            self.sessions, self.sessions.runs, arguments, cast(Any, self.peers), offer_timeout=9
        )

    async def offer(self, *sdps: str) -> list[asyncio.Task[dict[str, str]]]:
        tasks = []
        for sdp in sdps:
            offer = Offer(sdp, None, False, sdp)
            tasks.append(asyncio.ensure_future(self.calls.offer("s", offer, max_seconds=None, caller=UNKNOWN_CALLER)))
            await asyncio.sleep(0.01)
        return tasks

    async def open(self, *sdps: str) -> None:
        for sdp in sdps:
            self.peers.gates[sdp].set()
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        self.sessions.cancel_all(Outcome.CANCELLED)
        assert await self.sessions.until_empty(5)


def refused(task: asyncio.Task[Any]) -> bool:
    return type(task.exception()).__name__ == "DuplicateSession"


@pytest.mark.parametrize("order", [("one", "two"), ("two", "one")])
def test_the_newest_offer_has_the_bot_whichever_is_answered_first(order: tuple[str, str]) -> None:
    async def main() -> None:
        scene = Scene()
        one, two = await scene.offer("one", "two")
        await scene.open(*order)
        assert scene.ran[-1] == "two"
        assert list(scene.peers.open_ones.values()) == ["two"]
        assert two.result() == {"sdp": "two"}
        assert refused(one) if order[0] == "two" else one.result() == {"sdp": "one"}
        await scene.end()
        assert scene.peers.open_ones == {}

    asyncio.run(main())


def test_an_offer_that_is_answered_after_its_session_has_ended_leaves_nothing() -> None:
    async def main() -> None:
        scene = Scene("two")
        one, two = await scene.offer("one", "two")
        await scene.open("two", "one")
        assert two.result() == {"sdp": "two"}
        assert refused(one)
        assert scene.peers.open_ones == {}
        assert len(scene.sessions) == 0

    asyncio.run(main())


@pytest.mark.parametrize("order", [("bad", "two"), ("two", "bad")])
def test_an_unusable_offer_does_not_end_the_session_of_a_good_one(order: tuple[str, str]) -> None:
    async def main() -> None:
        scene = Scene()
        bad, two = await scene.offer("bad", "two")
        await scene.open(*order)
        assert isinstance(bad.exception(), Malformed)
        assert two.result() == {"sdp": "two"}
        assert scene.ran == ["two"]
        assert len(scene.sessions) == 1
        await scene.end()

    asyncio.run(main())


def test_a_session_without_one_usable_offer_is_over_when_the_last_is_refused() -> None:
    async def main() -> None:
        scene = Scene()
        await scene.offer("bad 1", "bad 2")
        await scene.open("bad 1")
        assert len(scene.sessions) == 1
        await scene.open("bad 2")
        assert len(scene.sessions) == 0
        assert scene.ran == []

    asyncio.run(main())


def test_offers_that_are_being_answered_when_their_session_is_ended_leave_nothing() -> None:
    async def main() -> None:
        scene = Scene()
        one, two = await scene.offer("one", "two")
        await scene.end()
        await scene.open("one", "two")
        assert refused(one)
        assert refused(two)
        assert scene.peers.open_ones == {}

    asyncio.run(main())


@pytest.mark.parametrize("ticks", range(6))
def test_an_offer_whose_handler_is_cancelled_keeps_no_place(ticks: int) -> None:
    async def main() -> None:
        scene = Scene()
        task = asyncio.ensure_future(
            scene.calls.offer("s", Offer("one", None, False, "one"), max_seconds=None, caller=UNKNOWN_CALLER)
        )
        for _ in range(ticks):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0.01)
        assert len(scene.sessions) == 0
        assert not scene.calls.has("s")

    asyncio.run(main())
