"""Calling the user's hooks without letting them hold up the launcher."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from pipecat_base.bot.loader import is_async

T = TypeVar("T")


async def call(hook: Callable[[], Any]) -> Any:
    """Await an async hook; run an ordinary one in a thread, so that it may block.

    The thread is a daemon: one of an executor would be waited for when the interpreter ends, were it stuck for ever.
    """
    result = await hook() if is_async(hook) else await _in_thread(hook)
    return await result if inspect.isawaitable(result) else result


class TookTooLong(Exception):
    """A step of the user's was not done in its time."""


async def within(seconds: float, step: Coroutine[Any, Any, T]) -> T:
    """The step's result. Not ``wait_for``: a TimeoutError of the user's own must not be taken for ours.

    Raises:
        TookTooLong: after ``seconds``; the step is cancelled and not waited for.
    """
    task = asyncio.ensure_future(step)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TookTooLong
    return task.result()


async def _in_thread(hook: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(hook)
        except BaseException as error:
            settle(future.set_exception, _storable(error))
        else:
            settle(future.set_result, result)

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        def later() -> None:
            if not future.done():
                setter(value)

        try:
            loop.call_soon_threadsafe(later)
        except RuntimeError:
            return  # the loop is closed: nobody waits any more

    threading.Thread(target=run, name=f"hook {getattr(hook, '__name__', 'hook')}", daemon=True).start()
    return await future


def _storable(error: BaseException) -> BaseException:
    # A future refuses StopIteration, and hands SystemExit to whoever awaits it.
    if isinstance(error, StopIteration):
        return RuntimeError("it raised StopIteration")
    return error


class Lifespan:
    """An async context manager that is entered and left in one task, as task groups inside it demand."""

    def __init__(self, context: AbstractAsyncContextManager[Any]) -> None:
        self._context = context
        self._leave = asyncio.Event()
        self._entered = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> Any:
        """Enter it; what it yields. Raises what it raises."""
        entered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.ensure_future(self._live(entered))
        await asyncio.wait({entered, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not entered.done():
            self._task.result()
        return entered.result()

    async def stop(self) -> None:
        """Leave it. Raises what it raises."""
        self._leave.set()
        if self._task is None or self._task.done():
            return
        if self._entered:
            await self._task
        else:
            self._task.cancel()

    async def _live(self, entered: asyncio.Future[Any]) -> None:
        async with self._context as value:
            self._entered = True
            if not entered.done():
                entered.set_result(value)
            await self._leave.wait()
