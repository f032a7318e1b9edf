"""WebRTC sessions: who waits for an offer, which peer has the bot, and who takes it over.

A session begins with the platform's ``POST /bot`` and waits for the offer of the same id, or with an offer. The bot
runs on one peer at a time. An offer for a session that has one already (the page was reloaded) takes over: the old peer
is closed, and the bot starts again on the new one with the same session and body.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipecat_base.bot.arguments import ArgumentFactory, Arguments
from pipecat_base.bot.runner import BotRunner
from pipecat_base.bot.webrtc.connections import PeerConnection, PeerConnections
from pipecat_base.bot.webrtc.offers import Offer
from pipecat_base.errors import DuplicateSession, NoOffer, Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.registry import Session, SessionRegistry
from pipecat_base.sessions.transports import Caller, PendingWebRTC, TransportKind


@dataclass
class WebRTCSession:
    """One WebRTC session's way to its next peer."""

    body: Any
    flow_config: str | None
    conductor: asyncio.Task[None] | None = None
    """Runs a session that began with an offer."""
    offers: int = 0
    """How many have come."""
    opening: int = 0
    """How many of them are being answered."""
    latest: int = 0
    """The number of the one whose peer was handed last."""
    next: asyncio.Future[PeerConnection] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def hand(self, peer: PeerConnection) -> PeerConnection | None:
        """Give it a peer; the one that had not been taken up yet, if there was one, is to be closed."""
        before = self.next.result() if self.next.done() and not self.next.cancelled() else None
        if self.next.done():
            self.next = asyncio.get_running_loop().create_future()
        self.next.set_result(peer)
        return before

    def take(self) -> PeerConnection:
        """The peer that was handed."""
        peer = self.next.result()
        self.next = asyncio.get_running_loop().create_future()
        return peer


class WebRTCSessions:
    """Owns every call that comes with an offer to us.

    Args:
        offer_timeout: Seconds that a waiting ``POST /bot`` gets for its offer.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        runs: BotRunner,
        arguments: ArgumentFactory,
        peers: PeerConnections,
        *,
        offer_timeout: float,
    ) -> None:
        self._registry = registry
        self._runs = runs
        self._arguments = arguments
        self._peers = peers
        self._offer_timeout = offer_timeout
        self._calls: dict[str, WebRTCSession] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def wait(
        self,
        session: Session,
        transport: PendingWebRTC,
        body: Any,
        *,
        flow_config: str | None,
        caller_left: asyncio.Future[None],
    ) -> Report:
        """Run a session that begins without an offer; what became of it.

        Raises:
            NoOffer: none came.
        """
        call = self._calls[session.id] = WebRTCSession(body, flow_config)
        try:
            left = max(0.0, self._offer_timeout - transport.waited)
            outcome = await self._registry.wait(session, call.next, caller_left, timeout=left)
            if outcome is not None:
                return Report(outcome, "The session ended before an offer came.", 0.0)
            if not call.next.done():
                message = f"No offer for this session came within {self._offer_timeout:g} s."
                raise NoOffer(message, session_id=session.id)
            return await self._run(session, call)
        finally:
            await self._forget(session.id, call)

    def has(self, session_id: str) -> bool:
        """Whether this session waits for an offer or has a peer."""
        return session_id in self._calls

    async def offer(
        self, session_id: str, offer: Offer, *, max_seconds: float | None, caller: Caller
    ) -> dict[str, str]:
        """The answer to an offer that names no connection of ours.

        Raises:
            Refusal: a session for it was not admitted, or it cannot be answered. Nothing is left behind.
        """
        with logger.contextualize(session_id=session_id):
            call = self._calls.get(session_id) or await self._begin(session_id, offer.data, max_seconds, caller)
            call.offers += 1
            number = call.offers
            call.opening += 1
            try:
                peer, answer = await self._answer(offer, caller)
            except BaseException:
                call.opening -= 1
                await self._give_up(call)
                raise
            call.opening -= 1
            # Meanwhile the session may have ended, or an offer that came later was answered first.
            if self._calls.get(session_id) is not call or number < call.latest:
                await self._peers.close(peer)
                raise DuplicateSession("That session has ended, or has a newer peer.", session_id=session_id)
            call.latest = number
            if offer.data:  # an empty one says nothing: what POST /bot has brought stays
                call.body = offer.data
            superseded = call.hand(peer)
            if superseded is not None:
                await self._peers.close(superseded)
            return answer

    async def _answer(self, offer: Offer, caller: Caller) -> tuple[PeerConnection, dict[str, str]]:
        peer = await self._peers.open(offer, caller)
        try:
            return peer, self._peers.answer(peer)
        except BaseException:
            await self._peers.close(peer)
            raise

    async def _give_up(self, call: WebRTCSession) -> None:
        """End a session that began with an offer, when none of its offers could be answered."""
        if call.conductor is not None and call.latest == 0 and call.opening == 0:
            call.next.cancel()
            await asyncio.wait({call.conductor})

    async def _begin(self, session_id: str, data: Any, max_seconds: float | None, caller: Caller) -> WebRTCSession:
        """A session that begins with an offer.

        Raises:
            Refusal: it was not admitted.
        """
        admitted: asyncio.Future[WebRTCSession] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._conduct(session_id, data, max_seconds, caller, admitted))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        try:
            call = await admitted
        except asyncio.CancelledError:
            task.cancel()
            raise
        call.conductor = task
        return call

    async def _conduct(
        self,
        session_id: str,
        data: Any,
        max_seconds: float | None,
        caller: Caller,
        admitted: asyncio.Future[WebRTCSession],
    ) -> None:
        try:
            admission = self._registry.admit(session_id, TransportKind.WEBRTC, max_seconds=max_seconds, caller=caller)
            async with admission as session:
                call = self._calls[session_id] = WebRTCSession({} if data is None else data, None)
                if not admitted.cancelled():
                    admitted.set_result(call)
                try:
                    outcome = await self._registry.wait(session, call.next, timeout=None)
                    if outcome is None and not call.next.cancelled():
                        await self._run(session, call)
                finally:
                    await self._forget(session_id, call)
        except Refusal as refusal:
            if not admitted.done():
                admitted.set_exception(refusal)
        except Exception as error:
            logger.opt(exception=True).error(f"The session cannot be run: {type(error).__name__}")
            if not admitted.done():
                admitted.set_exception(error)

    async def _run(self, session: Session, call: WebRTCSession) -> Report:
        """Run the bot on one peer after the other, until no other one has come."""
        while True:
            peer = call.take()
            try:
                connection = {"webrtc_connection": peer.connection}
                arguments = await self._arguments.build(
                    "webrtc", session.id, call.body, connection, flow_config=call.flow_config
                )
                report = await run_on(self._runs, session, arguments, peer, call.next)
            finally:
                await self._peers.close(peer)
            # However the bot took the loss of its peer: a client that is there wants a bot.
            if not call.next.done() or session.stop.done() or report.outcome is Outcome.EXPIRED:
                return report
            logger.info("Another offer of the same session takes over")

    async def _forget(self, session_id: str, call: WebRTCSession) -> None:
        del self._calls[session_id]
        if call.next.done() and not call.next.cancelled():
            await self._peers.close(call.next.result())


async def run_on(
    runs: BotRunner, session: Session, arguments: Arguments, peer: PeerConnection, *ends: asyncio.Future[Any]
) -> Report:
    """Run the bot until it ends, its peer has left, or one of ``ends`` is done."""
    leaving = asyncio.ensure_future(peer.until_left())
    over = asyncio.ensure_future(asyncio.wait({leaving, *ends}, return_when=asyncio.FIRST_COMPLETED))
    measuring = asyncio.ensure_future(peer.measure(partial(runs.emit, session.id)))
    try:
        return await runs.run(session, arguments, until=over)
    finally:
        for task in (leaving, over, measuring):
            task.cancel()
        await peer.tell_stats(partial(runs.emit, session.id))
