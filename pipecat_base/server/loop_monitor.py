"""Notices that an event loop is blocked, and by which line of the bot's."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger
from pipecat_base.telemetry.session_context import current

BEAT = 0.25
"""Seconds between heartbeats of the loop, and between looks of the thread."""
STALLED = 0.5
"""Seconds without a heartbeat after which the loop counts as blocked: probes time out after one second."""
WORTH_A_LINE = 1.0
"""Seconds without a heartbeat after which the log says so."""


class LoopMonitor:
    """Looks at the heartbeat of the loop of the thread that has made this.

    Args:
        project: The user's folder, to show the line that blocks.
        consequence: What the log says of it.
    """

    def __init__(self, project: str, *, consequence: str) -> None:
        self._project = project
        self._consequence = consequence
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_at = time.monotonic()
        self._stalled_at: float | None = None

    def beat(self) -> None:
        """The loop runs. Called on it."""
        self._loop = asyncio.get_running_loop()
        self._beat_at = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds without a heartbeat."""
        return time.monotonic() - self._beat_at

    def look(self) -> bool:
        """Whether the loop is blocked. Tells the log, once. Called in another thread."""
        silent = self.silent
        if silent < STALLED:
            if self._stalled_at is not None:
                total = time.monotonic() - self._stalled_at
                self._stalled_at = None
                _log(f"The event loop runs again after {total:.1f} s")
            return False
        if self._stalled_at is None and silent > WORTH_A_LINE:
            self._stalled_at = self._beat_at
            where = tracebacks.where_is_thread(self._thread, self._project)
            session_id = _session_of(self._loop)
            _log(f"The event loop is blocked{f' by {where}' if where else ''}; {self._consequence}", session_id)
        return True


async def watch_lag(tell: Callable[[dict[str, float]], None], every: float = 1.0) -> None:
    """Measure how late the loop runs, and tell the most of ``every`` seconds; until this is cancelled."""
    while True:
        lag = 0.0
        for _ in range(round(every / BEAT)):
            due = time.monotonic() + BEAT
            await asyncio.sleep(BEAT)
            lag = max(lag, time.monotonic() - due)
        tell({"lag_secs": lag})


async def watch_own_loop(project: str) -> None:
    """Of a process that has one session, in a thread; until this is cancelled."""
    stalls = LoopMonitor(project, consequence="its session waits for it")
    over = threading.Event()

    def look() -> None:
        while not over.wait(BEAT):
            stalls.look()

    threading.Thread(target=look, name="stalls", daemon=True).start()
    try:
        while True:
            stalls.beat()
            await asyncio.sleep(BEAT)
    finally:
        over.set()


def _session_of(loop: asyncio.AbstractEventLoop | None) -> str | None:
    """The session whose task the loop runs now; None where that cannot be told (before Python 3.12)."""
    with contextlib.suppress(Exception):
        get_context = getattr(asyncio.current_task(loop), "get_context", None)
        listener = None if get_context is None else get_context().get(current)
        return None if listener is None else str(listener.session_id)
    return None


def _log(message: str, session_id: str | None = None) -> None:
    # In a thread of its own: the blocked code may hold the logger's lock.
    threading.Thread(target=_warn, args=(message, session_id), daemon=True).start()


def _warn(message: str, session_id: str | None) -> None:
    with contextlib.nullcontext() if session_id is None else logger.contextualize(session_id=session_id):
        logger.warning(message)
