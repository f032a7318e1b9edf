"""The bot's own word on its readiness: its ``readyz()``, asked without letting it hold up a probe."""

from __future__ import annotations

import asyncio
import math
from typing import Any

from pipecat_base.bot import hooks
from pipecat_base.bot.loader import Hook, is_async
from pipecat_base.logs.logger import logger
from pipecat_base.logs.throttle import LogThrottle

MAX_STUCK = 3
"""Calls of readyz() that hang at the same time; no more are made until one of them ends."""


class Readiness:
    """Asks the bot.

    Args:
        readyz: The bot's hook; None when it has no say.
        timeout: Seconds it gets.
    """

    def __init__(self, readyz: Hook | None, *, timeout: float) -> None:
        self._readyz = readyz
        self._timeout = timeout
        self._asking: asyncio.Task[Any] | None = None
        self._stuck: set[asyncio.Task[Any]] = set()
        self._problems = LogThrottle(math.inf)  # probes repeat every few seconds

    async def request(self) -> dict[str, Any]:
        """``{"ready": bool, ...}``; the bot's dict is as it is."""
        return {"ready": True} if self._readyz is None else await self._request(self._readyz)

    async def _request(self, readyz: Hook) -> dict[str, Any]:
        # Probes that come together share an answer, and one that hangs must not pile up with every probe.
        if self._asking is None:
            if len(self._stuck) >= MAX_STUCK:
                return self._not_ready(f"readyz() has not answered within {self._timeout:g} s")
            self._asking = asyncio.ensure_future(hooks.call(readyz))
        asking = self._asking
        done, _ = await asyncio.wait({asking}, timeout=self._timeout)
        if self._asking is asking:
            self._asking = None
        if not done:
            # An async one is cancelled; the thread of an ordinary one can only be left to itself.
            self._stuck.add(asking)
            asking.add_done_callback(self._stuck.discard)
            if is_async(readyz):
                asking.cancel()
            return self._not_ready(f"readyz() has not answered within {self._timeout:g} s")
        error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if error is not None:
            return self._not_ready(f"readyz() raised {type(error).__name__}", error)
        verdict = asking.result()
        if isinstance(verdict, dict) and isinstance(verdict.get("ready"), bool):
            self._problems.reset()
            return verdict
        if isinstance(verdict, bool):
            self._problems.reset()
            return {"ready": verdict}
        return self._not_ready('readyz() must return True, False or a dict with the key "ready" (True or False)')

    def _not_ready(self, message: str, error: BaseException | None = None) -> dict[str, Any]:
        if (line := self._problems.admit(message)) is not None:
            logger.opt(exception=error).error(line)
        return {"ready": False, "state": "ready", "reason": message}
