"""Session slots: the part that every pod shares."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, Generic, TypeVar

from pipecat_base.errors import Refusal, UnknownSession
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.registry import Closer, Session, SessionRegistry, SessionState
from pipecat_base.sessions.transports import Transport, TransportKind


class HeldSlot:
    def __init__(self, registry: SessionRegistry, session: Session) -> None:
        self.session = session
        self._registry = registry
        self.background_run: asyncio.Future[Any] | None = None  # keeps the slot after the scope
        self.freed: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # after such a run
        self._disconnected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_taken_over = False

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        raise NotImplementedError  # subclasses run the bot

    async def start(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> None:
        running = asyncio.ensure_future(self.run(transport, body, flow_config=flow_config))
        try:
            while not running.done() and self.session.state is SessionState.ADMITTED:  # its arguments are being made
                changed = asyncio.ensure_future(self._registry.changed())
                await asyncio.wait({running, changed}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        except asyncio.CancelledError:
            running.cancel()
            raise
        if running.done():
            running.result()
        self.background_run = running

    async def wait(self, *events: asyncio.Future[Any]) -> Outcome | None:
        return await self._registry.wait(self.session, *events, timeout=None)

    async def until_ended(self) -> None:
        if self.background_run is not None:
            await asyncio.wait({self.background_run})

    def take_over(self) -> bool:
        """Claim the run that waits for its offer; False without one, or if another call has it."""
        session = self.session
        waits = session.state in (SessionState.ADMITTED, SessionState.WAITING) and not session.stop.done()
        # One that is evictable waits for the client of POST /start.
        if session.transport is not TransportKind.WEBRTC or session.is_evictable or not waits or self._is_taken_over:
            return False
        self._is_taken_over = True
        return True

    async def until_waiting(self) -> None:
        while self.session.state is SessionState.ADMITTED:
            await self._registry.changed()
        if not self._is_active:
            raise UnknownSession(self.session.id, "The session that waited for this call has ended.")

    async def connect(self) -> None:
        await self._connect()
        while self._is_active:
            await self._registry.changed()

    async def _connect(self) -> None:
        raise NotImplementedError  # subclasses reach the run

    def end(self, outcome: Outcome) -> None:
        if self._is_active:
            self._registry.cancel(self.session.id, outcome)

    @property
    def _is_active(self) -> bool:
        return self._registry.get(self.session.id) is self.session

    def add_closer(self, closer: Closer) -> None:
        self.session.add_closer(closer)

    def on_disconnect(self) -> None:
        if not self._disconnected.done():
            self._disconnected.set_result(None)


P = TypeVar("P", bound=HeldSlot)


class SlotReservations(Generic[P]):
    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._background: set[asyncio.Task[None]] = set()
        self._held: dict[str, P] = {}

    def get(self, session_id: str) -> P | None:
        return self._held.get(session_id)

    def take_over(self, session_id: str) -> P | None:
        slot = self._held.get(session_id)
        return slot if slot is not None and slot.take_over() else None

    @contextlib.asynccontextmanager
    async def reserve(
        self, request: SessionRequest, slot_for: Callable[[Session], P], *, announce: bool = True
    ) -> AsyncIterator[P]:
        """Hold a slot until the end of the scope, or of the run that was started in it."""
        async with contextlib.AsyncExitStack() as stack:
            admission = self._registry.admit(
                request.session_id,
                request.transport,
                max_seconds=request.max_seconds,
                is_evictable=request.is_evictable,
                caller=request.caller,
                announce=announce,
            )
            slot = slot_for(await stack.enter_async_context(admission))
            self._held[request.session_id] = slot
            stack.callback(self._held.pop, request.session_id)
            try:
                yield slot
            finally:
                if slot.background_run is not None:
                    task = asyncio.ensure_future(_finish(stack.pop_all(), slot, slot.background_run))
                    self._background.add(task)
                    task.add_done_callback(self._background.discard)


async def _finish(scope: contextlib.AsyncExitStack, slot: HeldSlot, running: asyncio.Future[Any]) -> None:
    with logger.contextualize(session_id=slot.session.id):
        try:
            async with scope:
                await running
        except Refusal as error:
            logger.info(f"Session over: {error.code}: {error.message}")
        except Exception as error:
            logger.opt(exception=error).error(f"The session could not be run: {type(error).__name__}")
        finally:
            slot.freed.set_result(None)
