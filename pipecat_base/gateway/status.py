"""What this gateway serves and how its bot is, for people and for clients that ask before they start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from pipecat_base.bot.features import Feature
from pipecat_base.gateway.path_parameters import parameters
from pipecat_base.server.lifecycle import Lifecycle, LifecycleState
from pipecat_base.sessions.registry import SessionRegistry


class StatusRoute:
    """Answers ``/status``, and what the command line of Pipecat Cloud asks of an agent before it starts it.

    Args:
        bot: The file's name.
        features: Asked for with each request: finding packages costs nothing.
        client: Where the prebuilt client is served, or None.
        shows_bot_errors: Whether whoever asks works on the bot: a page looks more often then.
    """

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: SessionRegistry,
        bot: str,
        transports: Sequence[str],
        features: Callable[[], list[Feature]],
        client: str | None,
        *,
        shows_bot_errors: bool,
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._bot = bot
        self._transports = list(transports)
        self._features = features
        self._client = client
        self._shows_bot_errors = shows_bot_errors

    def router(self) -> APIRouter:
        """The routes to serve."""
        router = APIRouter(tags=["status"])
        router.add_api_route("/status", self.status, methods=["GET"])
        router.add_api_route("/v1/agents/{agent}", self.agent, methods=["GET"])
        path = "/v1/organizations/{organization}/services/{agent}"
        router.add_api_route(path, self.service, methods=["GET"], dependencies=parameters(path))
        return router

    async def status(self) -> JSONResponse:
        """``{"status", "transports"}`` as pipecat's runner; and the bot, its features, links."""
        features = [
            {"name": f.name, "status": f.status.value, "required": f.required, "reason": f.reason}
            for f in self._features()
        ]
        answer: dict[str, Any] = {
            "status": self._lifecycle.state.value,
            "transports": self._transports,
            "bot": self._bot,
            "development": self._shows_bot_errors,
        }
        if self._lifecycle.problem is not None:
            answer |= self._lifecycle.problem.as_status()
        return JSONResponse({**answer, "features": features, "links": {"client": self._client}})

    async def agent(self, agent: str) -> JSONResponse:
        """Whether it can be started."""
        return JSONResponse(self._agent(agent))

    async def service(self, agent: str) -> JSONResponse:
        """The same where the command line of Pipecat Cloud looks for it, and wrapped as it expects it."""
        deployment = {"deployment": {"manifest": {"spec": {}}}, "autoScaling": {"minReplicas": 1, "maxReplicas": 1}}
        return JSONResponse({"body": {**self._agent(agent), **deployment}})

    def _agent(self, agent: str) -> dict[str, Any]:
        is_ready = self._lifecycle.state is LifecycleState.READY
        return {"name": agent, "ready": is_ready, "activeSessionCount": len(self._registry)}
