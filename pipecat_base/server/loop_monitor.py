"""Detects a blocked event loop, and the line of the bot's code that blocks it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable

from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger
from pipecat_base.telemetry.session_context import current

HEARTBEAT_SECONDS = 0.25
STALL_SECONDS = 0.5  # a loop without a heartbeat for this long is blocked: probes time out after one second
LOG_STALL_SECONDS = 1.0


class LoopMonitor:
    """Watches the heartbeat of the event loop of the thread that creates this."""

    def __init__(self, project: str, *, consequence: str) -> None:
        self._project = project
        self._consequence = consequence
        self._thread = threading.get_ident()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._beat_at = time.monotonic()
        self._stalled_at: float | None = None

    def beat(self) -> None:
        """Called on the event loop."""
        self._loop = asyncio.get_running_loop()
        self._beat_at = time.monotonic()

    @property
    def silent_seconds(self) -> float:
        return time.monotonic() - self._beat_at

    def is_blocked(self) -> bool:
        """Called in another thread. Logs once when the loop is blocked, and once when it runs again."""
        seconds = self.silent_seconds
        if seconds < STALL_SECONDS:
            if self._stalled_at is not None:
                total = time.monotonic() - self._stalled_at
                self._stalled_at = None
                warn_in_thread(f"The event loop runs again after {total:.1f} s")
            return False
        if self._stalled_at is None and seconds > LOG_STALL_SECONDS:
            self._stalled_at = self._beat_at
            where = tracebacks.where_is_thread(self._thread, self._project)
            session_id = _session_of(self._loop)
            blocked = f"The event loop is blocked{f' by {where}' if where else ''}; {self._consequence}"
            warn_in_thread(blocked, session_id)
        return True


async def watch_lag(report: Callable[[dict[str, float]], None], every: float = 1.0) -> None:
    while True:
        lag = 0.0
        for _ in range(round(every / HEARTBEAT_SECONDS)):
            due = time.monotonic() + HEARTBEAT_SECONDS
            await asyncio.sleep(HEARTBEAT_SECONDS)
            lag = max(lag, time.monotonic() - due)
        report({"lag_secs": lag})


async def watch_own_loop(project: str) -> None:
    monitor = LoopMonitor(project, consequence="its session waits for it")
    over = threading.Event()

    def watch() -> None:
        while not over.wait(HEARTBEAT_SECONDS):
            monitor.is_blocked()

    threading.Thread(target=watch, name="loop-monitor", daemon=True).start()
    try:
        while True:
            monitor.beat()
            await asyncio.sleep(HEARTBEAT_SECONDS)
    finally:
        over.set()


def _session_of(loop: asyncio.AbstractEventLoop | None) -> str | None:
    with contextlib.suppress(Exception):
        get_context = getattr(asyncio.current_task(loop), "get_context", None)  # since Python 3.12
        session = None if get_context is None else get_context().get(current)
        return None if session is None else str(session.session_id)
    return None


def warn_in_thread(message: str, session_id: str | None = None) -> threading.Thread:
    """Log a warning in another thread: the blocked code may hold the logger's lock."""
    thread = threading.Thread(target=_warn, args=(message, session_id), daemon=True)
    thread.start()
    return thread


def _warn(message: str, session_id: str | None) -> None:
    with contextlib.nullcontext() if session_id is None else logger.contextualize(session_id=session_id):
        logger.warning(message)
