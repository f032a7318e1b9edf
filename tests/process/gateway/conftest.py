from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher, until


@pytest.fixture(scope="session")
def shared(daily: DailyApi) -> Iterator[Launcher]:
    """One gateway for every test that leaves it as it was."""
    variables: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url, "PIPECAT_INSECURE": "1"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        yield launcher


@pytest.fixture
def gateway(shared: Launcher) -> Iterator[Launcher]:
    """The shared one, without sessions before and after."""
    yield shared
    stop_all(shared)


def stop_all(launcher: Launcher) -> None:
    for session in sessions(launcher):
        launcher.http.delete(f"/sessions/{session['sessionId']}")
    until(lambda: not sessions(launcher), "no sessions")


def sessions(launcher: Launcher) -> list[dict[str, object]]:
    found: list[dict[str, object]] = launcher.http.get("/sessions").json()["sessions"]
    return found


@pytest.fixture
def running(gateway: Launcher) -> str:
    """A running session's id."""
    answer = gateway.http.post("/v1/public/agent/start", json={"body": {"do": "stay"}})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sessionId"])
