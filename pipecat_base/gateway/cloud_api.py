"""Pipecat Cloud's API for an agent, its sessions and its log.

``pipecat cloud agent list``, ``sessions``, ``stop`` and ``logs`` use ``/v1/organizations/ORGANIZATION``; the REST API
(docs.pipecat.ai, "Pipecat Cloud") has the sessions below ``/v1/agents`` too.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse

from pipecat_base.errors import Malformed, NotServed, UnknownSession
from pipecat_base.gateway.path_parameters import parameters
from pipecat_base.logs.jsonl.records import FILE
from pipecat_base.server.lifecycle import Lifecycle, LifecycleState
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import PastSession, Session, SessionRegistry

AGENT = "/v1/agents/{agent}"
SERVICES = "/v1/organizations/{organization}/services"
SERVICE = f"{SERVICES}/{{agent}}"
SESSIONS = {"agent": f"{AGENT}/sessions", "service": f"{SERVICE}/sessions"}
ACTIVE = "active"
END_STATES = {Outcome.COMPLETED: "completed", Outcome.DISCONNECTED: "completed", Outcome.FAILED: "agent_error"}
TERMINATED = "terminated"  # any other outcome
MAX_LOG_BYTES = 4_000_000  # searched, from the log's end
MAX_LOG_LINES = 1000


class CloudApi:
    """Serves the only agent, under any name. ``log_folder`` has ``bot.jsonl``."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        registry: SessionRegistry,
        *,
        name: str,
        log_folder: str | None,
        shows_log: bool,
        stop: Callable[[str], Awaitable[JSONResponse]],
    ) -> None:
        self._lifecycle = lifecycle
        self._registry = registry
        self._name = name
        self._log_folder = log_folder
        self._shows_log = shows_log
        self._stop = stop

    def router(self) -> APIRouter:
        router = APIRouter(tags=["status"])
        router.add_api_route(AGENT, self.agent, methods=["GET"])
        router.add_api_route(SERVICE, self.service, methods=["GET"], dependencies=parameters(SERVICE))
        return router

    def management(self) -> APIRouter:
        """Routes that need a private key, as on the platform."""
        router = APIRouter(tags=["management"])

        def add(path: str, answer: Callable[..., Any], name: str, method: str = "GET") -> None:
            router.add_api_route(path, answer, methods=[method], name=name, dependencies=parameters(path))

        add(SERVICES, self.list, "list_of_agents")
        add(f"{SERVICE}/logs", self.logs, "logs_of_service")
        for name, path in SESSIONS.items():
            add(path, self.sessions, f"list_of_{name}")
            add(f"{path}/{{session_id}}", self.session, f"session_of_{name}")
            add(f"{path}/{{session_id}}", self._stop, f"stop_of_{name}", "DELETE")
        return router

    async def agent(self, agent: str) -> JSONResponse:
        return JSONResponse(self._agent(agent))

    async def service(self, agent: str) -> JSONResponse:
        """The agent, for the command line of Pipecat Cloud, which reads it before it starts a session."""
        deployment = {"deployment": {"manifest": {"spec": {}}}, "autoScaling": {"minReplicas": 1, "maxReplicas": 1}}
        return JSONResponse({"body": {**self._agent(agent), **deployment}})

    def _agent(self, agent: str) -> dict[str, Any]:
        is_ready = self._lifecycle.state is LifecycleState.READY
        return {"name": agent, "ready": is_ready, "activeSessionCount": len(self._registry)}

    async def list(self) -> JSONResponse:
        service = {
            "name": self._name,
            "region": "here",
            "id": self._name,
            "activeDeploymentId": "here",
            "createdAt": _iso(self._registry.created_at),
            "updatedAt": _iso(self._registry.created_at),
        }
        return JSONResponse({"services": [service]})

    async def sessions(self, end_state: Annotated[str | None, Query(alias="endState")] = None) -> JSONResponse:
        """Running sessions; with ``endState`` sessions that ended so, the last one first."""
        known = (ACTIVE, *dict.fromkeys(END_STATES.values()), TERMINATED)
        if end_state is not None and end_state not in known:
            raise Malformed(f"endState is not one of {', '.join(known)}.", field="endState")
        if end_state in (None, ACTIVE):
            found = [_running(session) for session in self._registry]
        else:
            found = [line for line in map(_ended, self._registry.past()) if line["endState"] == end_state]
        return JSONResponse({"sessions": found})

    async def session(self, session_id: str) -> JSONResponse:
        """A session that runs, or that ended recently."""
        running = self._registry.get(session_id)
        if running is not None:
            return JSONResponse(_running(running))
        past = next((past for past in self._registry.past() if past.id == session_id), None)
        if past is None:
            raise UnknownSession(session_id)
        return JSONResponse(_ended(past))

    async def logs(
        self,
        limit: str = "100",
        session_id: Annotated[str | None, Query(alias="sessionId")] = None,
    ) -> JSONResponse:
        """The last lines of the log, the oldest of them first."""
        if not self._shows_log:
            raise NotServed("The log needs a private key: set PIPECAT_PRIVATE_API_KEYS.")
        if self._log_folder is None:
            raise NotServed("No log lines are kept: set PCC_LOG_DIR to a folder for them.")
        if not limit.isdecimal() or len(limit) > 9 or int(limit) < 1:
            raise Malformed("limit is not a whole number (1 to 999,999,999).", field="limit")
        path = os.path.join(self._log_folder, FILE)
        count = min(int(limit), MAX_LOG_LINES)
        return JSONResponse({"logs": await asyncio.to_thread(_last_lines, path, count, session_id)})


def _running(session: Session) -> dict[str, Any]:
    return _entry(session.id, session.started_at, None, ACTIVE)


def _ended(past: PastSession) -> dict[str, Any]:
    return _entry(past.id, past.started_at, past.ended_at, END_STATES.get(past.report.outcome, TERMINATED))


def _entry(session_id: str, started: datetime, ended: datetime | None, end_state: str) -> dict[str, Any]:
    return {
        "sessionId": session_id,
        "createdAt": _iso(started),
        "endedAt": None if ended is None else _iso(ended),
        "endState": end_state,
        "completionStatus": None if ended is None else "500" if end_state == END_STATES[Outcome.FAILED] else "200",
        "botStartSeconds": None,
        "coldStart": False,
    }


def _iso(at: datetime) -> str:
    return at.isoformat()


def _last_lines(path: str, limit: int, session_id: str | None) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for record in reversed(_records(path)):
        if session_id is None or record.get("session_id") == session_id:
            level = record.get("level")
            text = str(record.get("line", ""))
            found.append({"timestamp": str(record.get("@timestamp", "")), "log": f"{level}: {text}" if level else text})
        if len(found) == limit:
            break
    return found[::-1]


def _records(path: str) -> list[dict[str, Any]]:
    """Records at the end of the file and of the one before it, without those that the cut damages."""
    content = _end_of(path, MAX_LOG_BYTES)
    content = _end_of(f"{path}.1", MAX_LOG_BYTES - len(content)) + content
    found = []
    for line in content.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            found.append(record)
    return found


def _end_of(path: str, max_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - max_bytes))
            return file.read(max_bytes)
    except OSError:
        return b""
