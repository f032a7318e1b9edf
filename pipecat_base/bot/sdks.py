"""Deliver what known SDKs of the bot have queued, before its process ends: Sentry, loguru, OpenTelemetry."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from pipecat_base.logs.logger import logger

PROVIDERS = (
    ("opentelemetry.trace", "get_tracer_provider"),
    ("opentelemetry.metrics", "get_meter_provider"),
    ("opentelemetry._logs", "get_logger_provider"),
)


async def flush_on_loop(within: float) -> None:
    """Flush what sends on the event loop: Sentry's asynchronous transport, and loguru's coroutines."""
    flush = getattr(_sentry_client(), "flush_async", None)
    if flush is not None and _sends_on_loop():
        with contextlib.suppress(Exception):
            await asyncio.wait_for(flush(timeout=within), within)


def runs(task: asyncio.Task[Any]) -> bool:
    """True for a task in which an SDK waits for what it will send."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and f"{os.sep}sentry_sdk{os.sep}" in code.co_filename


def flush(within: float) -> list[str]:
    """Flush all of them at once; return the names of those that are not done in time."""
    threads = [threading.Thread(target=_run, args=(step, within), name=name, daemon=True) for name, step in _steps()]
    deadline = time.monotonic() + within
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return [thread.name for thread in threads if thread.is_alive()]


def _run(step: Callable[[float], Any], within: float) -> None:
    with contextlib.suppress(Exception):
        step(within)


def _steps() -> Iterator[tuple[str, Callable[[float], Any]]]:
    client = _sentry_client()
    if client is not None and not _sends_on_loop():
        yield "Sentry", lambda within: client.flush(timeout=within)
    yield "loguru", lambda within: logger.complete()
    for module, name in PROVIDERS:
        get: Any = getattr(sys.modules.get(module), name, None)
        force_flush = None if get is None else getattr(get(), "force_flush", None)
        if force_flush is not None:
            yield "OpenTelemetry", _in_milliseconds(force_flush)


def _in_milliseconds(force_flush: Callable[[int], Any]) -> Callable[[float], Any]:
    return lambda within: force_flush(int(1000 * within))


def _sentry_client() -> Any:
    get: Any = getattr(sys.modules.get("sentry_sdk"), "get_client", None)  # since 2.0
    return None if get is None else get()


def _sends_on_loop() -> bool:
    return type(getattr(_sentry_client(), "transport", None)).__name__ == "AsyncHttpTransport"
