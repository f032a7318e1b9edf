"""CPU and memory of running sessions, and of sessions that ended recently."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from pipecat_base.sessions.outcome import MAX_REPORTS
from pipecat_base.telemetry.events import Event

MAX_POINTS = 120
"""Of a session; then neighbours are averaged, so that a call of hours is kept whole."""


class ResourcePoint(NamedTuple):
    at: float
    cpu_millicores: float
    memory_bytes: float


@dataclass
class ResourceSeries:
    """Samples of a session, evenly averaged into at most ``MAX_POINTS``."""

    sample_count: int = 0
    points: list[ResourcePoint] = field(default_factory=list)
    _pending: list[ResourcePoint] = field(default_factory=list)
    _samples_per_point: int = 1

    def add(self, sample: ResourcePoint) -> None:
        self.sample_count += 1
        self._pending.append(sample)
        if len(self._pending) < self._samples_per_point:
            return
        self.points.append(_average(self._pending))
        self._pending.clear()
        if len(self.points) == MAX_POINTS:
            self.points = [_average(self.points[index : index + 2]) for index in range(0, MAX_POINTS, 2)]
            self._samples_per_point *= 2


class ResourceHistory:
    """The event sink that keeps each session's series."""

    def __init__(self) -> None:
        self._running: dict[str, ResourceSeries] = {}
        self._past: OrderedDict[str, ResourceSeries] = OrderedDict()

    def get(self, session_id: str) -> ResourceSeries | None:
        return self._running.get(session_id) or self._past.get(session_id)

    def handle(self, event: Event) -> None:
        if event.session_id is None:
            return
        if event.name == "session_admitted":
            self._running[event.session_id] = ResourceSeries()
        elif event.name == "resources" and event.session_id in self._running:
            used = event.fields
            sample = ResourcePoint(event.at, used.get("cpu_millicores", 0), used.get("memory_bytes", 0))
            self._running[event.session_id].add(sample)
        elif event.name == "session_ended" and event.session_id in self._running:
            self._past[event.session_id] = self._running.pop(event.session_id)
            self._past.move_to_end(event.session_id)
            if len(self._past) > MAX_REPORTS:
                self._past.popitem(last=False)

    def close(self, within: float) -> None: ...


def _average(points: list[ResourcePoint]) -> ResourcePoint:
    cpu = sum(point.cpu_millicores for point in points) / len(points)
    return ResourcePoint(points[-1].at, cpu, sum(point.memory_bytes for point in points) / len(points))
