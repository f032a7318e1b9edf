"""WhatsApp calls: each answered once, run as a session, and told to Meta when it ends here."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipecat.transports.whatsapp.api import WhatsAppConnectCall
from pydantic import ValidationError

from pipecat_base.arguments import ArgumentFactory
from pipecat_base.errors import Malformed, Refusal
from pipecat_base.logs import logger
from pipecat_base.outcomes import Outcome
from pipecat_base.sessions import Session, Sessions, Transport
from pipecat_base.webrtc.calls import run_on
from pipecat_base.webrtc.offers import parse_offer
from pipecat_base.webrtc.peers import Peer, Peers
from pipecat_base.whatsapp.graph import Graph, GraphError
from pipecat_base.whatsapp.webhook import Connect

REMEMBERED = 10_000
"""Call ids kept, so that an event which is delivered again, or late, starts nothing."""


@dataclass
class Call:
    """One call, from its webhook to its end."""

    id: str
    session_id: str
    accepted: bool = False
    ended: bool = False
    failed: bool = False
    """The Graph API let it down: that it can not be told of the end either is no news."""
    peer: Peer | None = None
    hung_up: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Done when WhatsApp says that the call is over."""


class Calls:
    """Owns every WhatsApp call."""

    def __init__(self, sessions: Sessions, arguments: ArgumentFactory, peers: Peers, graph: Graph) -> None:
        self._sessions = sessions
        self._arguments = arguments
        self._peers = peers
        self._graph = graph
        self._calls: dict[str, Call] = {}
        self._known: dict[str, None] = {}
        self._running: set[asyncio.Task[None]] = set()

    def connect(self, session_id: str, event: Connect, *, max_seconds: float | None) -> asyncio.Future[None]:
        """Answer a call and run the bot on it; done when it is answered, or can not be."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if session_id in self._session_ids():
            session_id = str(uuid.uuid4())  # several calls in one webhook, or in one pod
        with logger.contextualize(session_id=session_id):
            if event.call_id in self._known:
                logger.info("WhatsApp delivered a call again, or after its end; nothing to do")
                settled.set_result(None)
                return settled
            self._remember(event.call_id)
            # At once: its end may be delivered before the next step.
            call = self._calls[event.call_id] = Call(event.call_id, session_id)
            self._start(self._conduct(call, event, max_seconds, settled))
        return settled

    def terminate(self, call_id: str) -> None:
        """WhatsApp says that a call is over."""
        self._remember(call_id)
        call = self._calls.get(call_id)
        if call is None or call.hung_up.done():
            logger.info("WhatsApp: ignored the end of a call that is not here")
            return
        with logger.contextualize(session_id=call.session_id):
            logger.info("WhatsApp says that the call is over")
            call.hung_up.set_result(None)
            if call.peer is not None:
                # The bot is told by its transport, and ended if it does not end by itself.
                self._start(self._peers.close(call.peer))

    def _start(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(step)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _session_ids(self) -> set[str]:
        return {session.id for session in self._sessions} | {call.session_id for call in self._calls.values()}

    def _remember(self, call_id: str) -> None:
        self._known[call_id] = None
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]

    async def _conduct(
        self, call: Call, event: Connect, max_seconds: float | None, settled: asyncio.Future[None]
    ) -> None:
        try:
            metadata = _metadata(event)
            async with self._sessions.admit(call.session_id, Transport.WHATSAPP, max_seconds=max_seconds) as session:
                session.on_end(partial(self._end, call))
                peer = await self._answer(session, call, event)
                if peer is not None:
                    settled.set_result(None)
                    arguments = await self._arguments.webrtc(session.id, metadata, peer.connection)
                    await run_on(self._sessions, session, arguments, peer)
        except Refusal as refusal:
            logger.warning(f"WhatsApp call declined: {refusal.code}: {refusal.message}")
            await self._end(call)
        except GraphError as error:
            logger.error(f"WhatsApp call failed: {error}")
        except Exception as error:
            logger.opt(exception=True).error(f"WhatsApp call failed: {type(error).__name__}")
        finally:
            del self._calls[call.id]
            if not settled.done():
                settled.set_result(None)

    async def _answer(self, session: Session, call: Call, event: Connect) -> Peer | None:
        """Its peer, or None when it is over already.

        Raises:
            Malformed: what it offers can not be answered.
            GraphError: Meta was not told.
        """
        answering = asyncio.ensure_future(self._pick_up(call, event))
        outcome = await self._sessions.wait(session, answering, call.hung_up, timeout=None)
        if outcome is None:
            return answering.result()
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        logger.info(f"WhatsApp call over before it was answered: {outcome.value}")
        return None

    async def _pick_up(self, call: Call, event: Connect) -> Peer:
        call.peer = await self._peers.open(parse_offer(event.offer))
        sdp = only_sha256(call.peer.connection.get_answer()["sdp"])
        try:
            await self._graph.pre_accept(call.id, event.caller, sdp)
            # From here on it may be up, whether or not we learn of it.
            call.accepted = True
            await self._graph.accept(call.id, event.caller, sdp)
        except GraphError:
            call.failed = True
            raise
        return call.peer

    async def _end(self, call: Call, outcome: Outcome | None = None) -> None:
        """Close its peer and tell Meta, once."""
        if call.ended:
            return
        call.ended = True
        telling = asyncio.ensure_future(self._tell(call))
        if call.peer is not None:
            await self._peers.close(call.peer)
        await telling

    async def _tell(self, call: Call) -> None:
        if call.hung_up.done():
            return
        try:
            await (self._graph.terminate(call.id) if call.accepted else self._graph.reject(call.id))
        except GraphError as error:
            logger.log("DEBUG" if call.failed else "WARNING", f"WhatsApp was not told of the call's end: {error}")


def only_sha256(sdp: str) -> str:
    """The SDP without fingerprints of other kinds: WhatsApp takes no other."""
    lines = sdp.splitlines()
    kept = [
        line for line in lines if not line.startswith("a=fingerprint:") or line.startswith("a=fingerprint:sha-256 ")
    ]
    return "\r\n".join(kept) + "\r\n"


def _metadata(event: Connect) -> Any:
    """What the bot gets as its body, of the type that pipecat's own runner passes.

    pipecat demands fields that Meta leaves out of some events; those are empty.
    """
    optional = {"from": "", "to": "", "timestamp": "", "direction": None}
    try:
        return WhatsAppConnectCall.model_validate({**optional, **event.fields})
    except ValidationError:
        raise Malformed("Fields of the call have other types than Meta documents.", field="calls") from None
