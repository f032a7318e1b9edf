"""Tasks, threads and jobs of executors that outlive ``bot()``: they have a bound, and one line says what is cut."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import nullcontext
from types import FrameType
from typing import Any

from pipecat_base.bot import sdks
from pipecat_base.bot.hooks import OWNER as HOOKS
from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger
from pipecat_base.server.loop_monitor import warn_in_thread
from pipecat_base.server.shared_loop import owners

POLL_SECONDS = 0.02
BLOCKED_SECONDS = 1.0  # beyond the bound, an event loop that does not look at the clock is blocked
FLUSH_SECONDS = 0.5
LOG_SECONDS = 0.5
MAX_NAMED = 5
TOO_LONG = "The end of the bot's process took too long and was cut: its event loop is held up"
EXECUTOR_MODULE = "/concurrent/futures/thread.py"


class Leftovers:
    """Waits, at the end of a process, for what its sessions' bots have left running.

    Args:
        abandoned: Tasks that have ignored their end already, and are not waited for.

    Attributes:
        seconds_left: Of the bound, for what else the end of the process waits for.
    """

    def __init__(self, grace: float, project: str, abandoned: Collection[asyncio.Task[Any]]) -> None:
        self.seconds_left = grace
        self._grace = grace
        self._project = project
        self._abandoned = abandoned
        self._end_process: Callable[[], None] | None = None
        self._seconds_for_rest = 0.0
        self._guard: threading.Timer | None = None
        self._known: set[FrameType] = set()

    def end_process_with(self, end: Callable[[], None], seconds_for_rest: float) -> None:
        """Wait for threads too, which the process would not outlive, and call ``end`` where the loop is blocked.

        ``seconds_for_rest`` is what the loop has after the wait, until :meth:`over` is called.
        """
        self._end_process = end
        self._seconds_for_rest = seconds_for_rest

    def begin(self) -> None:
        """Called after ``setup()``: the threads that run now belong to the process, not to a call."""
        self._known = set(self._threads())

    async def wait(self, session_ids: list[str]) -> None:
        """Wait within the bound; name what still runs then, and cancel it where that is possible."""
        began = time.monotonic()
        session_id = session_ids[0] if len(session_ids) == 1 else None
        loops_thread = threading.get_ident()

        def cut_blocked() -> None:
            self._leave(self._line([f"the event loop, which is blocked{self._by(loops_thread)}"]), session_id)

        self._within(self._grace + BLOCKED_SECONDS, cut_blocked)
        await self._until_none(began + self._grace)
        await sdks.flush_on_loop(max(FLUSH_SECONDS, began + self._grace - time.monotonic()))
        self._within(self._seconds_for_rest, lambda: self._leave(f"{TOO_LONG}{self._by(loops_thread)}", session_id))
        self.seconds_left = max(0.0, self._grace - (time.monotonic() - began))
        self._cut(session_id)

    def over(self) -> None:
        """Called after the event loop has ended."""
        if self._guard is not None:
            self._guard.cancel()

    def _within(self, seconds: float, otherwise: Callable[[], None]) -> None:
        self.over()
        if self._end_process is not None:
            self._guard = threading.Timer(seconds, otherwise)
            self._guard.daemon = True
            self._guard.start()

    async def _until_none(self, deadline: float) -> None:
        looks = 0  # two: between two jobs, a thread of an executor seems to have none
        while looks < 2 and time.monotonic() < deadline:
            looks = 0 if self._tasks() or self._threads() else looks + 1
            await asyncio.sleep(POLL_SECONDS)

    def _tasks(self) -> dict[asyncio.Task[Any], str]:
        loop = asyncio.get_running_loop()
        return {
            task: owner
            for task, owner in owners(loop).items()
            if owner != HOOKS and task not in self._abandoned and not sdks.runs(task)
        }

    def _threads(self) -> dict[FrameType, threading.Thread]:
        if self._end_process is None:
            return {}
        return {frame: thread for frame, thread in _jobs().items() if frame not in self._known}

    def _cut(self, session_id: str | None) -> None:
        tasks, threads = self._tasks(), self._threads()
        names = [self._task_name(task) for task in tasks]
        names += [self._thread_name(frame, thread) for frame, thread in threads.items()]
        owning = set(tasks.values())
        session_id = owning.pop() if len(owning) == 1 else session_id
        if names:
            with nullcontext() if session_id is None else logger.contextualize(session_id=session_id):
                logger.warning(self._line(names))
        for task in tasks:
            task.cancel()

    def _by(self, thread: int) -> str:
        where = tracebacks.where_is_thread(thread, self._project)
        return f" by {where}" if where else ""

    def _leave(self, line: str, session_id: str | None) -> None:
        assert self._end_process is not None
        warn_in_thread(line, session_id).join(LOG_SECONDS)
        self._end_process()

    def _line(self, names: list[str]) -> str:
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        named = ", ".join(names[:MAX_NAMED])
        return f"Work that outlived bot() was cut after {self._grace:g} s (PIPECAT_EXIT_GRACE): {named}{more}"

    def _task_name(self, task: asyncio.Task[Any]) -> str:
        coroutine = task.get_coro()
        name = task.get_name()
        if name.startswith("Task-"):
            name = f"{getattr(coroutine, '__qualname__', type(coroutine).__name__)}()"
        return f"task {name}{_at(tracebacks.where_is_suspended(coroutine, self._project))}"

    def _thread_name(self, job: FrameType, thread: threading.Thread) -> str:
        kind = "job in thread" if _is_executors(job.f_back) else "thread"
        where = None if thread.ident is None else tracebacks.where_is_thread(thread.ident, self._project)
        return f"{kind} {thread.name}{_at(where)}"


def _at(where: str | None) -> str:
    return f" ({where})" if where else ""


def _jobs() -> dict[FrameType, threading.Thread]:
    """Jobs of threads for which Python itself waits at its end, by the outermost frame of each."""
    frames = sys._current_frames()
    waited_for = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
    found = {}
    for thread in waited_for:
        frame = frames.get(thread.ident or 0)
        job = None if frame is None or _is_idle_manager(thread) else _outermost(frame)
        if job is not None:
            found[job] = thread
    return found


def _outermost(frame: FrameType) -> FrameType | None:
    """The job's frame in a thread of an executor, None if it waits for one; in others, the thread's first frame."""
    inner: FrameType | None = None
    for outer in _outwards(frame):
        if _is_executors(outer):
            return inner
        inner = outer
    return inner


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_executors(frame: FrameType | None) -> bool:
    return (
        frame is not None and frame.f_code.co_name == "_worker" and frame.f_code.co_filename.endswith(EXECUTOR_MODULE)
    )


def _is_idle_manager(thread: threading.Thread) -> bool:
    """True for the thread that serves a ProcessPoolExecutor without jobs."""
    return not getattr(thread, "pending_work_items", True)
