"""``GET /livez`` and ``GET /readyz``, for orchestrators.

Live: the process answers. Ready: the bot is set up, has a free slot, is not draining, and its own ``readyz()``
agrees. While the event loop is blocked, the watchdog answers both.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.logs.logger import logger
from pipecat_base.server.lifecycle import Lifecycle, LifecycleState
from pipecat_base.sessions.pod import Pod


class Health:
    def __init__(self, lifecycle: Lifecycle, pod: Pod, *, ready_when_full: bool) -> None:
        self._lifecycle = lifecycle
        self._pod = pod
        self._ready_when_full = ready_when_full

    def routes(self) -> list[Route]:
        return [Route("/livez", self.livez), Route("/readyz", self.ready)]

    async def livez(self, request: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def ready(self, request: Request) -> JSONResponse:
        """200 or 503; the body is the dict of the bot's ``readyz()``, or our reason."""
        state = self._lifecycle.state
        if state is not LifecycleState.READY:
            return _answer({"ready": False, "state": state.value})
        registry = self._pod.registry
        if registry.full and not self._ready_when_full:
            return _answer({"ready": False, "state": "full", "sessions": len(registry)})
        return _answer(await self._pod.ready())


def _answer(body: dict[str, Any]) -> JSONResponse:
    status = 200 if body["ready"] else 503
    try:
        return JSONResponse(body, status)
    except (TypeError, ValueError):
        logger.error("readyz() returned a dict that is not JSON")
        return JSONResponse({"ready": body["ready"], "reason": "readyz() returned a dict that is not JSON"}, status)
