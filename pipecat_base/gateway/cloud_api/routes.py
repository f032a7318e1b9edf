"""Routes of Pipecat Cloud's API.

The command line, ``pipecat cloud``, uses ``/v1/organizations/ORGANIZATION``; the REST API (docs.pipecat.ai, "Pipecat
Cloud") has the same below ``/v1``, with agents for services.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import APIRouter
from starlette.responses import JSONResponse

from pipecat_base.gateway.cloud_api.agent import CloudAgent
from pipecat_base.gateway.cloud_api.logs import CloudLogs
from pipecat_base.gateway.cloud_api.organization import CloudOrganization
from pipecat_base.gateway.cloud_api.sessions import CloudSessions
from pipecat_base.gateway.path_parameters import parameters
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.registry import SessionRegistry
from pipecat_base.telemetry.resources import ResourceSeries

AGENTS = "/v1/agents"
ORGANIZATIONS = "/v1/organizations"
ORGANIZATION = f"{ORGANIZATIONS}/{{organization}}"
SERVICES = f"{ORGANIZATION}/services"
USER = "/v1/users"
READ_BY_PROGRAMS = (AGENTS, f"{AGENTS}/", ORGANIZATIONS, f"{ORGANIZATIONS}/", USER)
"""Paths, and prefixes of paths, that have no line in the log: ``pipecat cloud agent logs`` would show its own."""
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class CloudApi:
    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: SessionRegistry,
        name: str,
        *,
        max_session_seconds: float | None,
        resources_of: Callable[[str], ResourceSeries | None],
        log_folder: str | None,
        shows_logs: bool,
        stop: Callable[[str], Awaitable[JSONResponse]],
    ) -> None:
        self._agent = CloudAgent(lifecycle, registry, name=name, max_session_seconds=max_session_seconds)
        self._sessions = CloudSessions(registry, name, resources_of)
        self._logs = CloudLogs(log_folder, is_shown=shows_logs)
        self._organization = CloudOrganization()
        self._stop = stop

    def router(self) -> APIRouter:
        router = APIRouter(tags=["status"])
        router.add_api_route(f"{AGENTS}/{{agent}}", self._agent.show, methods=["GET"])
        service = f"{SERVICES}/{{agent}}"
        router.add_api_route(
            service, self._agent.show_to_command_line, methods=["GET"], dependencies=parameters(service)
        )
        return router

    def management(self) -> APIRouter:
        """Routes that need a private key, as on the platform."""
        router = APIRouter(tags=["management"])

        def add(path: str, answer: Callable[..., Any], name: str, method: str = "GET") -> None:
            router.add_api_route(path, answer, methods=[method], name=name, dependencies=parameters(path))

        add(USER, self._organization.user, "user")
        add(ORGANIZATIONS, self._organization.list, "list_of_organizations")
        for name, below in {"organization": ORGANIZATION, "rest": "/v1"}.items():
            add(f"{below}/regions", self._organization.regions, f"regions_of_{name}")
            add(f"{below}/properties", self._organization.properties, f"properties_of_{name}")
            add(f"{below}/properties/schema", self._organization.properties_schema, f"properties_schema_of_{name}")
        for name, path in {"agent": AGENTS, "service": SERVICES}.items():
            add(path, self._agent.list, f"list_of_{name}s")
            one = f"{path}/{{agent}}"
            add(f"{one}/deployments", self._agent.deployments, f"deployments_of_{name}")
            add(f"{one}/logs", self._logs.list, f"logs_of_{name}")
            add(f"{one}/sessions", self._sessions.list, f"list_of_{name}")
            add(f"{one}/sessions/{{session_id}}", self._sessions.show, f"session_of_{name}")
            add(f"{one}/sessions/{{session_id}}", self._stop, f"stop_of_{name}", "DELETE")
        return router

    def refusals(self) -> APIRouter:
        """The rest of an organization; after every other route."""
        router = APIRouter(tags=["management"])
        path = f"{ORGANIZATION}/{{rest:path}}"
        for method in METHODS:
            router.add_api_route(
                path,
                self._organization.refuse,
                methods=[method],
                name=f"refusal_{method.lower()}",
                dependencies=parameters(path),
                include_in_schema=False,
            )
        return router
