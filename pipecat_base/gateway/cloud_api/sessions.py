"""Sessions that run, and that ended recently, as the platform describes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import JSONResponse

from pipecat_base.errors import NoProcess, UnknownSession
from pipecat_base.gateway.cloud_api import query
from pipecat_base.gateway.cloud_api.names import HERE, iso
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import PastSession, Session, SessionRegistry, SessionState
from pipecat_base.telemetry.resources import ResourceSeries

ACTIVE = "active"
COMPLETED = "completed"
NOT_STARTED = "ended_before_agent_start"
START_TIMEOUT = "agent_start_timeout"
TERMINATED = "terminated"
AGENT_ERROR = "agent_error"
END_STATES = (ACTIVE, COMPLETED, NOT_STARTED, START_TIMEOUT, TERMINATED, AGENT_ERROR, "unknown")
STATUSES = ("active", "ended", "all")
START_TYPES = ("cold", "warm", "all")
PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class SessionRecord:
    id: str
    entered: Mapping[SessionState, datetime]
    end_state: str
    completion_status: str | None

    @property
    def started(self) -> datetime:
        return self.entered[SessionState.ADMITTED]

    @property
    def ended(self) -> datetime | None:
        return self.entered.get(SessionState.ENDED)

    @property
    def start_seconds(self) -> int | None:
        """Seconds until the bot ran, or waited for its caller's offer."""
        ready = [self.entered[state] for state in (SessionState.WAITING, SessionState.RUNNING) if state in self.entered]
        return max(0, round((min(ready) - self.started).total_seconds())) if ready else None

    def fields(self, agent: str) -> dict[str, Any]:
        return {
            "sessionId": self.id,
            "serviceId": agent,
            "organizationId": HERE,
            "deploymentId": HERE,
            "createdAt": iso(self.started),
            "updatedAt": iso(max(self.entered.values())),
            "endedAt": None if self.ended is None else iso(self.ended),
            "endState": self.end_state,
            "completionStatus": self.completion_status,
            "botStartSeconds": self.start_seconds,
            "coldStart": False,
        }

    def events(self) -> list[dict[str, str]]:
        last = "SESSION_TIMEOUT" if self.end_state == START_TIMEOUT else "SESSION_COMPLETED"
        codes = {
            SessionState.ADMITTED: "SESSION_START_INITIATED",
            SessionState.RUNNING: "REQUEST_ARRIVED_AT_BOT",
            SessionState.ENDED: last,
        }
        return [
            {"eventCode": code, "eventTs": iso(self.entered[state])}
            for state, code in codes.items()
            if state in self.entered
        ]


@dataclass(frozen=True)
class SessionFilter:
    end_state: str | None
    status: str
    deployment: str | None
    start_type: str
    after: datetime | None
    before: datetime | None
    min_start_seconds: int
    max_start_seconds: int
    """0 is no limit."""

    def accepts(self, record: SessionRecord) -> bool:
        is_active = record.end_state == ACTIVE
        start_seconds = record.start_seconds or 0
        return (
            self.end_state in (None, record.end_state)
            and self.status in ("all", "active" if is_active else "ended")
            and self.deployment in (None, HERE)
            and self.start_type != "cold"
            and (self.after is None or self.after <= record.started)
            and (self.before is None or record.started <= self.before)
            and self.min_start_seconds <= start_seconds
            and (self.max_start_seconds == 0 or start_seconds <= self.max_start_seconds)
        )


class CloudSessions:
    def __init__(
        self, registry: SessionRegistry, agent: str, resources_of: Callable[[str], ResourceSeries | None]
    ) -> None:
        self._registry = registry
        self._agent = agent
        self._resources_of = resources_of

    async def list(
        self,
        end_state: Annotated[str | None, Query(alias="endState")] = None,
        status: str = "all",
        limit: str = "10",
        offset: str = "0",
        start_time: Annotated[str | None, Query(alias="startTime")] = None,
        end_time: Annotated[str | None, Query(alias="endTime")] = None,
        start_type: Annotated[str, Query(alias="startType")] = "all",
        min_start: Annotated[str, Query(alias="startTimeMin")] = "0",
        max_start: Annotated[str, Query(alias="startTimeMax")] = "0",
        deployment: Annotated[str | None, Query(alias="deploymentId")] = None,
    ) -> JSONResponse:
        """Sessions that run, and that ended recently, the newest first."""
        wanted = SessionFilter(
            None if end_state is None else query.choice("endState", end_state, END_STATES),
            query.choice("status", status, STATUSES),
            deployment,
            query.choice("startType", start_type, START_TYPES),
            query.time("startTime", start_time),
            query.time("endTime", end_time),
            query.whole_number("startTimeMin", min_start),
            query.whole_number("startTimeMax", max_start),
        )
        first, count = query.whole_number("offset", offset), query.whole_number("limit", limit, minimum=1)
        found = sorted(filter(wanted.accepts, self._records()), key=lambda record: record.started, reverse=True)
        page = [record.fields(self._agent) for record in found[first : first + count]]
        return JSONResponse({"total_count": len(found), "sessions": page})

    async def show(self, session_id: str) -> JSONResponse:
        """A session that runs, or that ended recently."""
        record = next((record for record in self._records() if record.id == session_id), None)
        if record is None:
            raise UnknownSession(session_id)
        details = {"events": record.events(), "resourceMetrics": self._resource_metrics(session_id), "meetingIds": []}
        return JSONResponse({**record.fields(self._agent), **details})

    def _records(self) -> Sequence[SessionRecord]:
        return [*map(_running, self._registry), *map(_past, self._registry.past())]

    def _resource_metrics(self, session_id: str) -> dict[str, Any] | None:
        series = self._resources_of(session_id)
        return _metrics(session_id, series) if series is not None and series.points else None


def _running(session: Session) -> SessionRecord:
    return SessionRecord(session.id, session.entered, ACTIVE, None)


def _past(session: PastSession) -> SessionRecord:
    state = _end_state(session)
    status = 200 if session.refusal is None else session.refusal.status
    return SessionRecord(session.id, session.entered, state, str(500 if state == AGENT_ERROR else status))


def _end_state(session: PastSession) -> str:
    outcome, ran = session.report.outcome, SessionState.RUNNING in session.entered
    if not ran and session.refusal is NoProcess:
        return START_TIMEOUT
    if outcome is Outcome.CANCELLED:
        return TERMINATED
    if outcome is Outcome.FAILED and (ran or session.refusal is None):
        return AGENT_ERROR
    if not ran:
        return NOT_STARTED
    return COMPLETED if outcome in (Outcome.COMPLETED, Outcome.DISCONNECTED) else TERMINATED


def _metrics(session_id: str, series: ResourceSeries) -> dict[str, Any]:
    points = series.points
    last = iso(datetime.fromtimestamp(points[-1].at).astimezone())
    return {
        "id": session_id,
        "sessionId": session_id,
        "sampleCount": series.sample_count,
        **_percentiles("cpuMillicores", [point.cpu_millicores for point in points]),
        **_percentiles("memoryBytes", [point.memory_bytes for point in points]),
        "timeseries": [
            {"t": round(point.at), "c": round(point.cpu_millicores), "m": round(point.memory_bytes)} for point in points
        ],
        "eventTs": last,
        "createdAt": last,
    }


def _percentiles(name: str, values: list[float]) -> dict[str, int]:
    """By the nearest rank."""
    ordered = sorted(values)
    return {f"{name}P{percent}": round(ordered[-(-percent * len(ordered) // 100) - 1]) for percent in PERCENTILES}
