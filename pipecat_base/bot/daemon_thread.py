"""Blocking functions of the bot and of libraries, in threads that end with the process."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from typing import Any


async def in_daemon_thread(function: Callable[[], Any]) -> Any:
    """Call a function that may block, for ever too: an executor's thread would hold up the interpreter's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            result = context.run(function)
        except StopIteration:  # a future refuses it
            settle(future.set_exception, RuntimeError("it raised StopIteration"))
        except BaseException as error:
            settle(future.set_exception, error)
        else:
            settle(future.set_result, result)

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        def later() -> None:
            if not future.done():
                setter(value)

        try:
            loop.call_soon_threadsafe(later)
        except RuntimeError:
            return  # the loop is closed

    threading.Thread(target=run, name=f"hook {getattr(function, '__name__', 'hook')}", daemon=True).start()
    return await future
