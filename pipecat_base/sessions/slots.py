"""What places of every pod have in common: a session on the board, and a run that goes on after its scope."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.registry import Closer, Session, SessionRegistry, SessionState
from pipecat_base.sessions.transports import Transport


class HeldSlot:
    """A place on the board. Pods add how the bot is run in it."""

    def __init__(self, registry: SessionRegistry, session: Session) -> None:
        self.session = session
        self._registry = registry
        self.going_on: asyncio.Task[Report] | None = None
        """A run that goes on after the scope."""
        self._caller_left: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        """Run the bot to its end."""
        raise NotImplementedError

    async def start(self, transport: Transport, body: Any) -> None:
        """Run the bot; it goes on after this."""
        running = asyncio.ensure_future(self.run(transport, body))
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
        self.going_on = running

    async def wait(self, *events: asyncio.Future[Any]) -> Outcome | None:
        """Keep the place until the first of ``events`` is done."""
        return await self._registry.wait(self.session, *events, timeout=None)

    async def until_over(self) -> None:
        """Wait for the end of what :meth:`start` has begun."""
        if self.going_on is not None:
            await asyncio.wait({self.going_on})

    def on_end(self, closer: Closer) -> None:
        """Close something with the session."""
        self.session.on_end(closer)

    def caller_left(self) -> None:
        """Whoever started it is gone."""
        if not self._caller_left.done():
            self._caller_left.set_result(None)


P = TypeVar("P", bound=HeldSlot)


class SlotReservations:
    """Holds places, and those that go on."""

    def __init__(self, registry: SessionRegistry) -> None:
        self._registry = registry
        self._going_on: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def reserve(self, request: SessionRequest, slot_for: Callable[[Session], P]) -> AsyncIterator[P]:
        """A place for ``request``; free at the end of the scope, or when what was started in it has ended."""
        async with contextlib.AsyncExitStack() as stack:
            admission = self._registry.admit(
                request.session_id,
                request.transport,
                max_seconds=request.max_seconds,
                gives_way=request.gives_way,
                caller=request.caller,
            )
            slot = slot_for(await stack.enter_async_context(admission))
            try:
                yield slot
            finally:
                if slot.going_on is not None:
                    task = asyncio.ensure_future(_go_on(stack.pop_all(), slot.going_on, request.session_id))
                    self._going_on.add(task)
                    task.add_done_callback(self._going_on.discard)


async def _go_on(scope: contextlib.AsyncExitStack, running: asyncio.Task[Report], session_id: str) -> None:
    with logger.contextualize(session_id=session_id):
        try:
            async with scope:
                await running
        except Refusal as error:
            logger.info(f"Session over: {error.code}: {error.message}")
        except Exception as error:
            logger.opt(exception=error).error(f"The session could not be run: {type(error).__name__}")
