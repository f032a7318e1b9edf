"""The event loop, which bots share with the launcher: a bot that ends all it finds there ends its own work only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Any

from pipecat_base.logs.logger import logger

_owner: ContextVar[str | None] = ContextVar("pipecat_base_task_owner", default=None)
_MARK = "is_shared_with_bots"
every_task = asyncio.all_tasks


@contextmanager
def owned_by(owner: str) -> Iterator[None]:
    """Tasks that are created inside, and by those, find each other with ``asyncio.all_tasks()``, and no others."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def hide_tasks_of_others() -> None:
    """Call before the bot is imported, which may import ``all_tasks`` by name."""
    asyncio.all_tasks = asyncio.tasks.all_tasks = _tasks_of_caller


def share(loop: asyncio.AbstractEventLoop) -> None:
    setattr(loop, _MARK, True)
    if not hasattr(asyncio.Task, "get_context"):  # Python 3.11
        loop.set_task_factory(_TaskWithContext)
    _keep_executor(loop)
    for name in ("shutdown_default_executor", "shutdown_asyncgens"):
        setattr(loop, name, _refusal(name))


def _tasks_of_caller(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    loop = loop or asyncio.get_running_loop()
    tasks, caller = every_task(loop), _owner.get()
    if not hasattr(loop, _MARK):
        return tasks
    # In another thread, the current task is the one that happens to run.
    current = asyncio.current_task(loop) if asyncio._get_running_loop() is loop else None
    return {task for task in tasks if task is current or (caller and _owner_of(task) == caller)}


def owners(loop: asyncio.AbstractEventLoop) -> dict[asyncio.Task[Any], str]:
    """Tasks of the loop that belong to somebody, and to whom."""
    return {task: owner for task in every_task(loop) if (owner := _owner_of(task)) is not None}


def _owner_of(task: Any) -> str | None:
    # A factory that the bot has set may make tasks without it.
    context: Context | None = task.get_context() if hasattr(task, "get_context") else None
    return None if context is None else context.get(_owner)


class _TaskWithContext(asyncio.Task[Any]):
    def __init__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, context: Context | None = None) -> None:
        self._found = copy_context() if context is None else context
        super().__init__(coroutine, loop=loop, context=self._found)

    def get_context(self) -> Context:
        return self._found


def _keep_executor(loop: asyncio.AbstractEventLoop) -> None:
    run: Callable[..., asyncio.Future[Any]] = loop.run_in_executor

    def run_in_executor(executor: Any, function: Any, *arguments: Any) -> asyncio.Future[Any]:
        try:
            return run(executor, function, *arguments)
        except RuntimeError as error:
            # "after shutdown", or "Executor shutdown has been called"; not "can't start new thread".
            if executor is not None or loop.is_closed() or "shutdown" not in str(error):
                raise
            loop.set_default_executor(ThreadPoolExecutor(thread_name_prefix="asyncio"))
            logger.warning("The bot has shut down the event loop's executor; the loop uses a new one now")
            return run(None, function, *arguments)

    loop.run_in_executor = run_in_executor  # type: ignore[method-assign, assignment]


def _refusal(name: str) -> Callable[..., Coroutine[Any, Any, None]]:
    async def refuse(*_: Any, **__: Any) -> None:
        logger.warning(f"The bot called loop.{name}(); nothing was shut down, as others use the loop too")

    return refuse
