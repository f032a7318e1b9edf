"""Calling the user's hooks without letting them hold up the launcher."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from pipecat_base.loader import is_async


async def call(hook: Callable[[], Any]) -> Any:
    """Await an async hook; run an ordinary one in a thread, so that it may block.

    The thread is a daemon: one of an executor would be waited for when the interpreter ends, were it stuck for ever.
    """
    if is_async(hook):
        return await hook()
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
        if self._task is not None:
            await self._task

    async def _live(self, entered: asyncio.Future[Any]) -> None:
        async with self._context as value:
            entered.set_result(value)
            await self._leave.wait()
