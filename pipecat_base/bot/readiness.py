"""The bot's own readiness: its hook ``readyz()``, called without delaying a probe."""

from __future__ import annotations

import asyncio
from typing import Any

from pipecat_base.bot import hooks
from pipecat_base.bot.callables import is_async
from pipecat_base.bot.functions import Hook
from pipecat_base.logs.logger import logger

MAX_HANGING_CALLS = 3


class Readiness:
    def __init__(self, readyz: Hook | None, *, timeout: float) -> None:
        self._readyz = readyz
        self._timeout = timeout
        self._call: asyncio.Task[Any] | None = None
        self._hanging: set[asyncio.Task[Any]] = set()
        self._logged: str | None = None

    async def request(self) -> dict[str, Any]:
        """The bot's own dict, or ``{"ready": bool, ...}``."""
        readyz = self._readyz
        if readyz is None:
            return {"ready": True}
        # Concurrent probes share a call, and a hook that hangs must not pile up calls with every probe.
        if self._call is None:
            if len(self._hanging) >= MAX_HANGING_CALLS:
                return self._not_ready(f"readyz() has not answered within {self._timeout:g} s")
            self._call = asyncio.ensure_future(hooks.call(readyz))
        call = self._call
        done, _ = await asyncio.wait({call}, timeout=self._timeout)
        if self._call is call:
            self._call = None
        if not done:
            # An async hook is cancelled; the thread of an ordinary one cannot be stopped.
            self._hanging.add(call)
            call.add_done_callback(self._hanging.discard)
            if is_async(readyz):
                call.cancel()
            return self._not_ready(f"readyz() has not answered within {self._timeout:g} s")
        error = asyncio.CancelledError() if call.cancelled() else call.exception()
        if error is not None:
            return self._not_ready(f"readyz() raised {type(error).__name__}", error)
        verdict = call.result()
        if isinstance(verdict, dict) and isinstance(verdict.get("ready"), bool):
            self._logged = None
            return verdict
        if isinstance(verdict, bool):
            self._logged = None
            return {"ready": verdict}
        return self._not_ready('readyz() must return True, False or a dict with the key "ready" (True or False)')

    def _not_ready(self, message: str, error: BaseException | None = None) -> dict[str, Any]:
        if message != self._logged:  # probes repeat every few seconds
            logger.opt(exception=error).error(message)
            self._logged = message
        return {"ready": False, "state": "ready", "reason": message}
