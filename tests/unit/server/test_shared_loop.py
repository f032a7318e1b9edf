from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

import pytest

from pipecat_base.server.shared_loop import _tasks_of_caller, owned_by, share


def test_a_task_finds_itself_and_those_of_its_owner() -> None:
    async def find() -> set[asyncio.Task[object]]:
        return _tasks_of_caller()

    async def main() -> None:
        share(asyncio.get_running_loop())
        current = asyncio.current_task()
        assert _tasks_of_caller() == {current}
        with owned_by("one"):
            waiting = asyncio.ensure_future(asyncio.sleep(1))
            finding = asyncio.ensure_future(find())
        assert await finding == {waiting, finding}
        waiting.cancel()

    asyncio.run(main())


def test_a_thread_does_not_find_the_task_that_runs_meanwhile() -> None:
    async def main() -> set[asyncio.Task[object]]:
        loop = asyncio.get_running_loop()
        share(loop)
        with owned_by("one"):
            of_another = copy_context()
        with ThreadPoolExecutor() as executor:
            # This task is the current one until the thread has looked.
            return executor.submit(of_another.run, _tasks_of_caller, loop).result()

    assert asyncio.run(main()) == set()


def test_only_an_executor_that_was_shut_down_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []
    monkeypatch.setattr("pipecat_base.server.shared_loop.logger.warning", warnings.append)

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        share(loop)
        await loop.run_in_executor(None, int)
        with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="new thread"):
            patched.setattr(ThreadPoolExecutor, "submit", refuse)
            await loop.run_in_executor(None, int)
        assert warnings == []
        loop._default_executor.shutdown()  # type: ignore[attr-defined]
        assert await loop.run_in_executor(None, int) == 0
        assert len(warnings) == 1

    asyncio.run(main())
