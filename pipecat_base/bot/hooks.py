"""Call the user's hooks without blocking the launcher."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pipecat_base.bot.callables import is_async
from pipecat_base.bot.daemon_thread import in_daemon_thread
from pipecat_base.server.shared_loop import owned_by

T = TypeVar("T")
OWNER = "the bot's hooks"
"""Owns the tasks that hooks start."""


async def call(hook: Callable[[], Any]) -> Any:
    """Await an async hook; run an ordinary one in a thread, so that it may block."""
    result = await hook() if is_async(hook) else await in_daemon_thread(hook)
    return await result if inspect.isawaitable(result) else result


class TookTooLong(Exception): ...


async def within(seconds: float, step: Coroutine[Any, Any, T]) -> T:
    """Await a step. Raises TookTooLong after ``seconds``; the step is cancelled but not awaited."""
    # Not wait_for, whose TimeoutError could not be told from one that the user's code raises.
    with owned_by(OWNER):
        task = asyncio.ensure_future(step)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TookTooLong
    return task.result()


class ContextTask:
    """Enters and leaves an async context manager in one task, as task groups inside it demand."""

    def __init__(self, context: AbstractAsyncContextManager[Any]) -> None:
        self._context = context
        self._leave = asyncio.Event()
        self._entered = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Any:
        entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._hold(entered))
        await asyncio.wait({entered, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not entered.done():
            self._task.result()
        return entered.result()

    async def stop(self) -> None:
        self._leave.set()
        if self._task is None or self._task.done():
            return
        if self._entered:
            await self._task
        else:
            self._task.cancel()

    async def _hold(self, entered: asyncio.Future[Any]) -> None:
        async with self._context as value:
            self._entered = True
            if not entered.done():
                entered.set_result(value)
            await self._leave.wait()
