"""``pipecat cloud agent …``, pointed at the gateway by PIPECAT_API_HOST."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.compat.clients.clients import KEY, cloud
from tests.process.gateway.conftest import sessions
from tests.support.callers import arguments
from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher, until


def start(
    launcher: Launcher, home: Path, *more: str, agent: str = "my-agent", key: str = KEY
) -> subprocess.CompletedProcess[str]:
    return cloud(launcher, "agent", "start", agent, "--force", "--api-key", key, *more, home=home)


def session_id(done: subprocess.CompletedProcess[str]) -> str:
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("Session ID:")]
    return line.partition(": ")[2].strip()


def test_start_runs_a_bot_with_the_data(gateway: Launcher, home: Path) -> None:
    done = start(gateway, home, "--data", '{"a": 1}')
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Agent 'my-agent' started successfully" in done.stdout
    assert arguments(gateway, session_id(done))["args"]["body"] == {"a": 1}


def test_start_with_daily_prints_a_link_to_the_bots_room(gateway: Launcher, daily: DailyApi, home: Path) -> None:
    done = start(gateway, home, "--use-daily", "--daily-properties", '{"max_participants": 2}')
    assert done.returncode == 0, done.stdout + done.stderr
    given = arguments(gateway, session_id(done))["args"]
    assert f"{given['room_url']}?t={daily_token(daily)}" in done.stdout
    assert daily.rooms[given["room_url"].rpartition("/")[2]]["max_participants"] == 2


def daily_token(daily: DailyApi) -> str:
    return f"token-{len(daily.tokens)}"


def test_start_says_that_every_place_is_taken(gateway: Launcher, running: str, home: Path) -> None:
    done = start(gateway, home)
    assert done.returncode == 1
    assert "PCC-AGENT-AT-CAPACITY" in done.stdout + done.stderr


def test_start_says_that_the_key_is_wrong(gateway: Launcher, home: Path) -> None:
    done = start(gateway, home, key="pk_other")
    assert done.returncode == 1
    assert "public API key" in done.stdout + done.stderr


def test_start_says_that_there_is_no_such_agent(gateway: Launcher, home: Path) -> None:
    done = start(gateway, home, agent="their-agent")
    assert done.returncode == 1
    assert "'their-agent' does not exist" in done.stdout + done.stderr


def test_stop_ends_the_session(gateway: Launcher, running: str, home: Path) -> None:
    done = cloud(gateway, "agent", "stop", "my-agent", "--session-id", running, "--force", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"'{running}' stopped successfully" in done.stdout
    until(lambda: sessions(gateway) == [], "the session's end")


@pytest.mark.parametrize("count", [0, 1])
def test_status_says_that_the_agent_is_ready_and_how_many_sessions_it_has(
    gateway: Launcher, home: Path, request: pytest.FixtureRequest, count: int
) -> None:
    if count:
        request.getfixturevalue("running")
    done = cloud(gateway, "agent", "status", "my-agent", home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ready: True" in done.stdout
    assert f"Active Session Count: {count}" in done.stdout


def test_status_for_a_terminal_has_what_it_needs_too(gateway: Launcher, home: Path) -> None:
    done = cloud(gateway, "agent", "status", "my-agent", home=home, PIPECAT_OUTPUT="rich")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Health: Ready" in done.stdout


def test_status_for_programs_is_json(gateway: Launcher, home: Path) -> None:
    done = cloud(gateway, "agent", "status", "my-agent", home=home, PIPECAT_OUTPUT="json")
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(done.stdout)
    assert (status["name"], status["ready"], status["activeSessionCount"]) == ("my-agent", True, 0)


def test_status_of_another_agent_is_an_error(gateway: Launcher, home: Path) -> None:
    done = cloud(gateway, "agent", "status", "their-agent", home=home)
    assert done.returncode == 1
    assert "No deployment data found" in done.stdout + done.stderr


def test_sessions_lists_those_that_run(gateway: Launcher, running: str, home: Path) -> None:
    done = cloud(gateway, "agent", "sessions", "my-agent", home=home, PIPECAT_OUTPUT="json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert running in done.stdout


def test_sessions_of_one_id_tells_of_it_while_it_runs_and_after_its_end(
    gateway: Launcher, running: str, home: Path
) -> None:
    done = cloud(gateway, "agent", "sessions", "my-agent", "--id", running, home=home, PIPECAT_OUTPUT="rich")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Session ID: {running}" in done.stdout
    assert "Status: Active" in done.stdout
    gateway.http.delete(f"/sessions/{running}")
    until(lambda: sessions(gateway) == [], "the session's end")
    done = cloud(gateway, "agent", "sessions", "my-agent", "--id", running, home=home, PIPECAT_OUTPUT="json")
    assert json.loads(done.stdout)["endState"] == "terminated"
    done = cloud(gateway, "agent", "sessions", "my-agent", "--end-state", "terminated", home=home)
    assert running in done.stdout


def test_list_has_the_one_agent(gateway: Launcher, home: Path) -> None:
    for output in ("rich", "json", "plain"):
        done = cloud(gateway, "agent", "list", home=home, PIPECAT_OUTPUT=output)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "my-agent" in done.stdout


def test_logs_prints_the_last_lines_of_a_session(gateway: Launcher, running: str, home: Path) -> None:
    done = cloud(gateway, "agent", "logs", "my-agent", "--session-id", running, home=home)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Session started" in done.stdout
    done = cloud(gateway, "agent", "logs", "my-agent", "--limit", "1", home=home, PIPECAT_OUTPUT="json")
    assert len(json.loads(done.stdout)["logs"]) == 1
