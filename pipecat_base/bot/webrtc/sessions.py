"""WebRTC sessions: each waits for an offer, and runs the bot on one peer after the other.

A session begins with an offer, or with the platform's ``POST /bot``, and then waits for the offer with its id, or for a
WhatsApp call that takes it over. Another offer for it (the page was reloaded) takes over: the old peer is closed, and
the bot starts again on the new one, with the same session and body.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from pipecat_base.bot.arguments import ArgumentFactory, Arguments
from pipecat_base.bot.webrtc.connections import PeerConnection, PeerConnections
from pipecat_base.bot.webrtc.offers import Offer
from pipecat_base.errors import DuplicateSession, NoOffer, Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.registry import Session, SessionRegistry
from pipecat_base.sessions.transports import Caller, TransportKind

if TYPE_CHECKING:
    from pipecat_base.bot.runner import BotRunner


@dataclass
class WebRTCSession:
    """A session's offers, and the peer for its next run of the bot."""

    body: Any
    flow_config: str | None
    task: asyncio.Task[None] | None = None  # of a session that began with an offer
    offers: int = 0
    pending_offers: int = 0  # which are being answered
    expects_call: bool = False  # one is being answered: if that fails, the session is ended
    latest_offer: int = 0  # the number of the one that the last peer came from
    next_peer: asyncio.Future[PeerConnection] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def set_next_peer(self, peer: PeerConnection) -> PeerConnection | None:
        """Replace the next peer; the one that it replaces, if there is one, is to be closed."""
        before = self.next_peer.result() if self.next_peer.done() and not self.next_peer.cancelled() else None
        if self.next_peer.done():
            self.next_peer = asyncio.get_running_loop().create_future()
        self.next_peer.set_result(peer)
        return before

    def take_next_peer(self) -> PeerConnection:
        peer = self.next_peer.result()
        self.next_peer = asyncio.get_running_loop().create_future()
        return peer


class WebRTCSessions:
    def __init__(
        self,
        registry: SessionRegistry,
        runner: BotRunner,
        arguments: ArgumentFactory,
        peers: PeerConnections,
        *,
        offer_timeout: float,
    ) -> None:
        self._registry = registry
        self._runner = runner
        self._arguments = arguments
        self._peers = peers
        self._offer_timeout = offer_timeout
        self._sessions: dict[str, WebRTCSession] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def wait(
        self,
        session: Session,
        body: Any,
        *,
        flow_config: str | None,
        caller_left: asyncio.Future[None],
    ) -> Report:
        """Run a session that begins without an offer, or raise NoOffer after ``offer_timeout`` seconds."""
        webrtc = self._sessions[session.id] = WebRTCSession(body, flow_config)
        try:
            outcome = await self._registry.wait(session, webrtc.next_peer, caller_left, timeout=self._offer_timeout)
            if outcome is None and webrtc.expects_call:
                outcome = await self._registry.wait(session, webrtc.next_peer, caller_left, timeout=None)
            if outcome is not None:
                return Report(outcome, "The session ended before an offer came.", 0.0)
            if not webrtc.next_peer.done():
                message = f"No offer for this session came within {self._offer_timeout:g} s."
                raise NoOffer(message, session_id=session.id)
            return await self._run(session, webrtc)
        finally:
            await self._remove(session.id, webrtc)

    def has(self, session_id: str) -> bool:
        """True while a session waits for an offer or has a peer."""
        return session_id in self._sessions

    def expect_call(self, session_id: str) -> None:
        """Keep a session that waits: a call that takes it over is being answered."""
        if session_id in self._sessions:
            self._sessions[session_id].expects_call = True

    async def connect(self, session_id: str, peer: PeerConnection, body: Any) -> None:
        """Run the session that waits on the peer of a call; closes the peer if the session has ended."""
        webrtc = self._sessions.get(session_id)
        if webrtc is None:
            await self._peers.close(peer)
            return
        webrtc.body = body
        superseded = webrtc.set_next_peer(peer)
        if superseded is not None:
            await self._peers.close(superseded)

    async def offer(
        self, session_id: str, offer: Offer, *, max_seconds: float | None, caller: Caller
    ) -> dict[str, str]:
        """Answer an offer without a ``pc_id`` of this process.

        Raises:
            Refusal: no session was admitted, or the offer cannot be answered. Nothing is left behind.
        """
        with logger.contextualize(session_id=session_id):
            webrtc = self._sessions.get(session_id) or await self._begin(session_id, offer.data, max_seconds, caller)
            webrtc.offers += 1
            number = webrtc.offers
            webrtc.pending_offers += 1
            try:
                peer, answer = await self._answer(offer, caller)
            except BaseException:
                webrtc.pending_offers -= 1
                await self._end_without_peer(webrtc)
                raise
            webrtc.pending_offers -= 1
            # Meanwhile the session may have ended, or a later offer was answered first.
            if self._sessions.get(session_id) is not webrtc or number < webrtc.latest_offer:
                await self._peers.close(peer)
                raise DuplicateSession("That session has ended, or has a newer peer.", session_id=session_id)
            webrtc.latest_offer = number
            if offer.data:  # if it is empty, the body of POST /bot stays
                webrtc.body = offer.data
            superseded = webrtc.set_next_peer(peer)
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

    async def _end_without_peer(self, webrtc: WebRTCSession) -> None:
        """End a session that began with an offer, when none of its offers could be answered."""
        if webrtc.task is not None and webrtc.latest_offer == 0 and webrtc.pending_offers == 0:
            webrtc.next_peer.cancel()
            await asyncio.wait({webrtc.task})

    async def _begin(self, session_id: str, data: Any, max_seconds: float | None, caller: Caller) -> WebRTCSession:
        """Start a session that begins with an offer, once it is admitted."""
        admitted: asyncio.Future[WebRTCSession] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._run_from_offer(session_id, data, max_seconds, caller, admitted))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            webrtc = await admitted
        except asyncio.CancelledError:
            task.cancel()
            raise
        webrtc.task = task
        return webrtc

    async def _run_from_offer(
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
                webrtc = self._sessions[session_id] = WebRTCSession({} if data is None else data, None)
                if not admitted.cancelled():
                    admitted.set_result(webrtc)
                try:
                    outcome = await self._registry.wait(session, webrtc.next_peer, timeout=None)
                    if outcome is None and not webrtc.next_peer.cancelled():
                        await self._run(session, webrtc)
                finally:
                    await self._remove(session_id, webrtc)
        except Refusal as refusal:
            if not admitted.done():
                admitted.set_exception(refusal)
        except Exception as error:
            logger.opt(exception=True).error(f"The session cannot be run: {type(error).__name__}")
            if not admitted.done():
                admitted.set_exception(error)

    async def _run(self, session: Session, webrtc: WebRTCSession) -> Report:
        """Run the bot on one peer after the other, as long as there is a next one."""
        while True:
            peer = webrtc.take_next_peer()
            try:
                connection = {"webrtc_connection": peer.connection}
                arguments = await self._arguments.build(
                    "webrtc", session.id, webrtc.body, connection, flow_config=webrtc.flow_config
                )
                report = await run_on_peer(self._runner, session, arguments, peer, webrtc.next_peer)
            finally:
                await self._peers.close(peer)
            # Even if the bot failed when its peer was closed: the next client wants a bot.
            if not webrtc.next_peer.done() or session.stop.done() or report.outcome is Outcome.EXPIRED:
                return report
            logger.info("Another offer of the same session takes over")

    async def _remove(self, session_id: str, webrtc: WebRTCSession) -> None:
        del self._sessions[session_id]
        if webrtc.next_peer.done() and not webrtc.next_peer.cancelled():
            await self._peers.close(webrtc.next_peer.result())


async def run_on_peer(
    runner: BotRunner, session: Session, arguments: Arguments, peer: PeerConnection, *ends: asyncio.Future[Any]
) -> Report:
    """Run the bot until it ends, its peer disconnects, or one of ``ends`` is done."""
    disconnecting = asyncio.ensure_future(peer.wait_until_disconnected())
    over = asyncio.ensure_future(asyncio.wait({disconnecting, *ends}, return_when=asyncio.FIRST_COMPLETED))
    measuring = asyncio.ensure_future(peer.measure(partial(runner.emit, session.id)))
    try:
        return await runner.run(session, arguments, until=over)
    finally:
        for task in (disconnecting, over, measuring):
            task.cancel()
        await peer.emit_stats(partial(runner.emit, session.id))
