from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.clients.clients import ENVIRONMENT, KEY, PERSONAL_TOKEN
from tests.process.gateway.conftest import stop_all
from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    assert (ENVIRONMENT / "bin" / "python").exists(), "the clients are not installed: make clients"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty folder: the home, and where the client is run."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def shared(daily: DailyApi, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    variables: dict[str, Any] = {
        "PIPECAT_PRIVATE_API_KEYS": f"{KEY},{PERSONAL_TOKEN}",
        "PIPECAT_AGENT_NAME": "my-agent",
        "MAX_SESSIONS": "1",
    }
    variables |= {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    variables["PCC_LOG_DIR"] = str(tmp_path_factory.mktemp("logs"))
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        launcher.http.headers["authorization"] = f"Bearer {KEY}"
        yield launcher


@pytest.fixture
def gateway(shared: Launcher) -> Iterator[Launcher]:
    """A gateway of one agent, with a key, Daily, and one place; without sessions before and after."""
    yield shared
    stop_all(shared)


@pytest.fixture
def running(gateway: Launcher) -> str:
    """A running session's id: it has the only place."""
    answer = gateway.http.post("/v1/public/my-agent/start", json={})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sessionId"])
