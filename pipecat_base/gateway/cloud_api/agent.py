"""The only agent, under any name, and its only deployment."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query
from starlette.responses import JSONResponse

from pipecat_base.gateway.cloud_api.names import HERE, iso
from pipecat_base.server.lifecycle import Lifecycle, LifecycleState
from pipecat_base.sessions.registry import SessionRegistry


class CloudAgent:
    """Describes the agent. ``name`` is its name in lists, ``max_session_seconds`` None for no limit."""

    def __init__(
        self, lifecycle: Lifecycle, registry: SessionRegistry, *, name: str, max_session_seconds: float | None
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._name = name
        self._max_session_seconds = max_session_seconds

    async def list(
        self,
        region: str = HERE,
        with_deployment: Annotated[str, Query(alias="includeActiveDeployment")] = "",
    ) -> JSONResponse:
        found = {"id": self._name, "name": self._name, "organizationId": HERE, "deletedAt": None, **self._common()}
        if with_deployment == "true":
            found["deployment"] = self._deployment(self._name)
        return JSONResponse({"services": [found] if region == HERE else []})

    async def show(self, agent: str) -> JSONResponse:
        return JSONResponse(self._details(agent))

    async def show_to_command_line(self, agent: str) -> JSONResponse:
        """The agent, for the command line of Pipecat Cloud, which reads it before it starts a session."""
        return JSONResponse({"body": self._details(agent)})

    async def deployments(self, agent: str) -> JSONResponse:
        return JSONResponse({"deployments": [self._deployment(agent)]})

    def _details(self, agent: str) -> dict[str, Any]:
        is_ready = self._lifecycle.state is LifecycleState.READY
        return {
            "name": agent,
            "ready": is_ready,
            "available": is_ready,
            "activeDeploymentReady": is_ready,
            "activeSessionCount": len(self._registry),
            "autoScaling": {"minReplicas": 1, "maxReplicas": 1},
            **self._common(),
            "deployment": self._deployment(agent),
        }

    def _common(self) -> dict[str, Any]:
        ids = ("desiredDeploymentId", "activeDeploymentId", "reconciledDeploymentId")
        return {"region": HERE, **dict.fromkeys(ids, HERE), **self._times()}

    def _deployment(self, agent: str) -> dict[str, Any]:
        seconds = self._max_session_seconds
        spec = {} if seconds is None else {"maxSessionDurationSeconds": round(seconds)}
        return {"id": HERE, "serviceId": agent, "manifest": {"spec": spec}, **self._times()}

    def _times(self) -> dict[str, str]:
        return dict.fromkeys(("createdAt", "updatedAt"), iso(self._registry.created_at))
