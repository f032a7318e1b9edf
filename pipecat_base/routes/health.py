"""``GET /livez`` and ``GET /readyz``, for orchestrators.

Live: the process answers. Ready: the bot is set up, there is a place, nobody asked to stop, and the bot's own
``readyz()`` agrees. While the event loop is blocked the watchdog answers both.
"""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base import hooks
from pipecat_base.lifecycle import Lifecycle, State
from pipecat_base.loader import Hook, is_async
from pipecat_base.logs import logger
from pipecat_base.sessions import Sessions

MOST_STUCK = 3
"""Calls of readyz() that hang at the same time; no more are made until one of them ends."""


class Health:
    """Answers both probes.

    Args:
        readyz: The bot's hook, or None.
        timeout: Seconds it gets.
        ready_when_full: Whether being full counts as ready.
    """

    def __init__(
        self, lifecycle: Lifecycle, sessions: Sessions, *, readyz: Hook | None, timeout: float, ready_when_full: bool
    ) -> None:
        self._lifecycle = lifecycle
        self._sessions = sessions
        self._readyz = readyz
        self._timeout = timeout
        self._ready_when_full = ready_when_full
        self._asking: asyncio.Task[Any] | None = None
        self._stuck: set[asyncio.Task[Any]] = set()
        self._complaint: str | None = None

    def routes(self) -> list[Route]:
        """The routes to serve."""
        return [Route("/livez", self.livez), Route("/readyz", self.ready)]

    async def livez(self, request: Request) -> JSONResponse:
        """200: to answer at all is the proof."""
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 or 503. The body of a bot's dict is that dict."""
        state = self._lifecycle.state
        if state is not State.READY:
            return _answer({"ready": False, "state": state.value})
        if self._sessions.full and not self._ready_when_full:
            return _answer({"ready": False, "state": "full", "sessions": len(self._sessions)})
        if self._readyz is None:
            return _answer({"ready": True})
        return _answer(await self._ask(self._readyz))

    async def _ask(self, readyz: Hook) -> dict[str, Any]:
        # Probes that come together share an answer, and one that hangs must not pile up with every probe.
        if self._asking is None:
            if len(self._stuck) >= MOST_STUCK:
                return self._complain(f"readyz() has not answered within {self._timeout:g} s")
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
            return self._complain(f"readyz() has not answered within {self._timeout:g} s")
        error = asyncio.CancelledError() if asking.cancelled() else asking.exception()
        if error is not None:
            return self._complain(f"readyz() raised {type(error).__name__}", error)
        verdict = asking.result()
        if isinstance(verdict, dict) and isinstance(verdict.get("ready"), bool):
            self._complaint = None
            return verdict
        if isinstance(verdict, bool):
            self._complaint = None
            return {"ready": verdict}
        return self._complain('readyz() must return True, False or a dict with the key "ready" (True or False)')

    def _complain(self, message: str, error: BaseException | None = None) -> dict[str, Any]:
        # Probes come every few seconds: one log line, not one a probe.
        if message != self._complaint:
            logger.opt(exception=error).error(message)
            self._complaint = message
        return {"ready": False, "state": "ready", "reason": message}


def _answer(body: dict[str, Any]) -> JSONResponse:
    status = 200 if body["ready"] else 503
    try:
        return JSONResponse(body, status)
    except (TypeError, ValueError):
        logger.error("readyz() returned a dict that is not JSON")
        return JSONResponse({"ready": body["ready"], "reason": "readyz() returned a dict that is not JSON"}, status)
