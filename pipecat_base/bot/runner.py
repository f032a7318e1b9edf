"""Run the bot for a session, until either ends."""

from __future__ import annotations

import asyncio
import resource
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from typing import Any

from pipecat_base.bot.arguments import Arguments
from pipecat_base.bot.resources import ResourceMonitor
from pipecat_base.bot.spans import Spans
from pipecat_base.bot.task import BotFunction, BotTask
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import MESSAGES, Outcome, Report
from pipecat_base.sessions.registry import Session, SessionRegistry
from pipecat_base.telemetry.session_context import ObserverOptions, SessionContext, SessionEmit, within_session


class BotRunner:
    """Runs the bot for sessions.

    Args:
        lines_of: Entered with a session's id while its bot runs, so that log lines carry the id.
        session_info: The fields of the event ``session_info``; empty for no such event.
        is_shared: True if other sessions run in this process too.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        bot: BotFunction,
        *,
        lines_of: Callable[[str], AbstractContextManager[None]],
        emit: SessionEmit | None,
        options: ObserverOptions,
        spans: Spans,
        session_info: Mapping[str, str],
        is_shared: bool,
    ) -> None:
        self._registry = registry
        self._bot = bot
        self._lines_of = lines_of
        self._emit = emit
        self._options = options
        self._spans = spans
        self._session_info = session_info
        self._is_shared = is_shared
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()

    async def run(self, session: Session, arguments: Arguments, *, until: asyncio.Future[Any] | None = None) -> Report:
        """Run the bot until it ends or must stop, or a disconnect sets ``until``. Never raises the bot's exception."""
        before = 0.0 if session.report is None else session.report.seconds  # of a run with an earlier peer
        started, cpu, seconds_left = time.monotonic(), time.process_time(), self._registry.begin_run(session)
        options = replace(self._options, traces=self._spans.is_on)
        context = SessionContext(session.id, options, self._emit_from_any_thread)
        with self._lines_of(session.id), within_session(context), self._spans.of(session) as span:
            logger.info(f"Session started: {_described(session)}")
            if self._session_info and session.report is None:
                context.emit("session_info", self._session_info)
            bot_task = BotTask(self._bot, session.id, arguments)
            resources = ResourceMonitor(lambda used: self.emit(session.id, "resources", used))
            try:
                waited: set[asyncio.Future[Any]] = {bot_task.task, session.stop, *([until] if until else [])}
                await asyncio.wait(waited, timeout=seconds_left, return_when=asyncio.FIRST_COMPLETED)
                if bot_task.task.done():
                    outcome, message = bot_task.result()
                else:
                    outcome = _cause(session, until)
                    message = MESSAGES[outcome]
                    session.outcome = outcome
                    await bot_task.cancel()
                    session.leaves_bot_running = not bot_task.task.done()
            except asyncio.CancelledError:
                # The route itself is cancelled, by the server's shutdown or by a middleware of the bot.
                session.outcome = Outcome.CANCELLED
                await bot_task.cancel()
                raise
            finally:
                resources.close()
            session.outcome = outcome
            seconds = time.monotonic() - started
            level = "WARNING" if outcome is Outcome.FAILED else "INFO"
            logger.log(level, f"Session ended: {outcome.value} after {seconds:.1f} s")
            if bot_task.failure is not None:
                context.emit("failure", bot_task.failure)
            process = {
                "cpu_secs": time.process_time() - cpu,
                "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "shared": self._is_shared,
            }
            self.emit(session.id, "process", process)
            span.end(outcome.value, message)
        bot_error = bot_task.bot_error if outcome is Outcome.FAILED else None
        session.report = Report(outcome, message, before + seconds, bot_error)
        return session.report

    def emit(self, session_id: str, name: str, fields: Mapping[str, Any]) -> None:
        self._emit_from_any_thread(session_id, name, fields, time.time())

    def _emit_from_any_thread(self, session_id: str, name: str, fields: Mapping[str, Any], at: float) -> None:
        if self._emit is None or self._bot.is_in_child:
            return
        if threading.get_ident() == self._thread:
            self._emit(session_id, name, fields, at)
        else:  # a pipeline that the bot runs in another thread
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._emit, session_id, name, fields, at)


def _described(session: Session) -> str:
    return session.transport.value + (f" from {session.caller.peer}" if session.caller.peer else "")


def _cause(session: Session, until: asyncio.Future[Any] | None) -> Outcome:
    if session.stop.done():
        return session.stop.result()
    return Outcome.DISCONNECTED if until is not None and until.done() else Outcome.EXPIRED
