"""WhatsApp calls: answers each call once, runs it as a session, and ends it at Meta.

A call with the id of a session that waits for its offer takes that session over: the platform requests ``/bot`` first.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from pipecat_base.api.whatsapp_calls.graph import Graph, GraphError
from pipecat_base.api.whatsapp_calls.webhook import Connect
from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import Pod, SessionRequest, SessionSlot
from pipecat_base.sessions.transports import TransportKind, WhatsAppCall

MAX_KNOWN_CALL_IDS = 10_000  # kept so that a repeated or late event starts no session


@dataclass
class OpenCall:
    id: str
    session_id: str
    accepted: bool = False
    ended: bool = False
    failed: bool = False  # the Graph API failed already, so that a failed hang-up is logged at DEBUG only
    slot: SessionSlot | None = None
    # Done when WhatsApp reports the end of the call.
    hung_up: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class OpenCalls:
    def __init__(self, pod: Pod, graph: Graph) -> None:
        self._pod = pod
        self._graph = graph
        self._calls: dict[str, OpenCall] = {}
        self._known: dict[str, None] = {}
        self._running: set[asyncio.Task[None]] = set()

    def connect(self, session_id: str, event: Connect, *, max_seconds: float | None) -> asyncio.Future[None]:
        """Answer a call and run the bot on it. The future is done once the call is answered, or cannot be."""
        settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if event.call_id in self._known:
            with logger.contextualize(session_id=session_id):
                logger.info("WhatsApp: ignored a call that was delivered again, or after its end")
            settled.set_result(None)
            return settled
        waiting = self._pod.take_over(session_id)
        if waiting is None and session_id in self._session_ids():
            session_id = str(uuid.uuid4())  # several calls in one webhook, or in one pod
        with logger.contextualize(session_id=session_id):
            self._remember(event.call_id)
            # Stored at once: the call's end may arrive before the next step.
            call = self._calls[event.call_id] = OpenCall(event.call_id, session_id)
            self._start(self._conduct(call, event, waiting, max_seconds, settled))
        return settled

    def terminate(self, call_id: str) -> None:
        self._remember(call_id)
        call = self._calls.get(call_id)
        if call is None or call.hung_up.done():
            logger.info("WhatsApp: ignored the end of an unknown call")
            return
        with logger.contextualize(session_id=call.session_id):
            logger.info("WhatsApp reported the end of the call")
            call.hung_up.set_result(None)
            if call.slot is not None:
                # Notifies the bot through its transport; a bot that ignores this is ended.
                self._start(call.slot.hang_up())

    def _start(self, step: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(step)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _session_ids(self) -> set[str]:
        return {session.id for session in self._pod.registry} | {call.session_id for call in self._calls.values()}

    def _remember(self, call_id: str) -> None:
        self._known[call_id] = None
        if len(self._known) > MAX_KNOWN_CALL_IDS:
            del self._known[next(iter(self._known))]

    async def _conduct(
        self,
        call: OpenCall,
        event: Connect,
        waiting: SessionSlot | None,
        max_seconds: float | None,
        settled: asyncio.Future[None],
    ) -> None:
        request = SessionRequest(call.session_id, TransportKind.WHATSAPP, max_seconds)
        try:
            async with self._pod.reserve(request) if waiting is None else _taken_over(waiting, call) as slot:
                slot.add_closer(partial(self._end, call))
                offer = WhatsAppCall(event.offer, event.fields)
                if await self._answer(slot, call, offer, event.caller):
                    settled.set_result(None)
                    await (slot.run(offer, None) if waiting is None else slot.connect())
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

    async def _answer(self, slot: SessionSlot, call: OpenCall, offer: WhatsAppCall, caller: str) -> bool:
        """Returns False if the call ended first. Raises Malformed for an unusable offer, or GraphError."""
        answering = asyncio.ensure_future(self._pick_up(slot, call, offer, caller))
        outcome = await slot.wait(answering, call.hung_up)
        if outcome is None:
            answering.result()
            return True
        answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        logger.info(f"WhatsApp call over before it was answered: {outcome.value}")
        return False

    async def _pick_up(self, slot: SessionSlot, call: OpenCall, offer: WhatsAppCall, caller: str) -> None:
        call.slot = slot
        sdp = only_sha256(await slot.pick_up(offer))
        try:
            await self._graph.pre_accept(call.id, caller, sdp)
            # From here on the call may be connected, even if this request fails.
            call.accepted = True
            await self._graph.accept(call.id, caller, sdp)
        except GraphError:
            call.failed = True
            raise

    async def _end(self, call: OpenCall, outcome: Outcome | None = None) -> None:
        if call.ended:
            return
        call.ended = True
        notifying = asyncio.ensure_future(self._end_at_meta(call))
        if call.slot is not None:
            await call.slot.hang_up()
        await notifying

    async def _end_at_meta(self, call: OpenCall) -> None:
        if call.hung_up.done():
            return
        try:
            await (self._graph.terminate(call.id) if call.accepted else self._graph.reject(call.id))
        except GraphError as error:
            logger.log("DEBUG" if call.failed else "WARNING", f"WhatsApp: the call could not be ended there: {error}")


@asynccontextmanager
async def _taken_over(slot: SessionSlot, call: OpenCall) -> AsyncIterator[SessionSlot]:
    """Whatever becomes of the call, its session does not wait for another one."""
    try:
        await slot.until_waiting()
        yield slot
    finally:
        slot.end(Outcome.DISCONNECTED if call.hung_up.done() else Outcome.CANCELLED)


def only_sha256(sdp: str) -> str:
    """Remove the fingerprints that WhatsApp does not accept."""
    lines = sdp.splitlines()
    kept = [
        line for line in lines if not line.startswith("a=fingerprint:") or line.startswith("a=fingerprint:sha-256 ")
    ]
    return "\r\n".join(kept) + "\r\n"
