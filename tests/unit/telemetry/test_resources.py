from __future__ import annotations

from pipecat_base.sessions.outcome import MAX_REPORTS
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.resources import MAX_POINTS, ResourceHistory, ResourcePoint, ResourceSeries


def event(name: str, session_id: str, at: float = 0.0, **fields: float) -> Event:
    return Event(name, session_id, fields, at)


def test_a_long_session_is_kept_whole_in_few_points() -> None:
    series = ResourceSeries()
    for second in range(10_000):
        series.add(ResourcePoint(second, second % 2, 100))
    assert series.sample_count == 10_000
    assert MAX_POINTS // 2 <= len(series.points) < MAX_POINTS
    gaps = {later.at - before.at for before, later in zip(series.points, series.points[1:], strict=False)}
    assert len(gaps) == 1
    assert {(point.cpu_millicores, point.memory_bytes) for point in series.points} == {(0.5, 100)}
    assert series.points[-1].at > 9_800


def test_a_session_keeps_its_samples_after_its_end() -> None:
    history = ResourceHistory()
    history.handle(event("session_admitted", "a"))
    history.handle(event("resources", "a", 7.0, cpu_millicores=250, memory_bytes=1000))
    history.handle(event("session_ended", "a"))
    history.handle(event("resources", "a", 8.0, cpu_millicores=1, memory_bytes=1))
    series = history.get("a")
    assert series is not None
    assert series.points == [ResourcePoint(7.0, 250, 1000)]
    assert history.get("b") is None


def test_only_the_last_sessions_are_kept() -> None:
    history = ResourceHistory()
    for number in range(MAX_REPORTS + 1):
        history.handle(event("session_admitted", str(number)))
        history.handle(event("session_ended", str(number)))
    assert history.get("0") is None
    assert history.get("1") is not None
