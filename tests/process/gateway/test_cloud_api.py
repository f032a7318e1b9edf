"""What the command line of Pipecat Cloud asks about an agent that runs here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from pipecat_base.gateway import cloud_api
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.registry import SessionRegistry
from tests.process.gateway.conftest import stop_all
from tests.support.launchers import Launcher, until

SERVICES = "/v1/organizations/mine/services"
SESSIONS = f"{SERVICES}/my-agent/sessions"
KEYS: dict[str, Any] = {"PIPECAT_PUBLIC_API_KEYS": "pk_public", "PIPECAT_PRIVATE_API_KEYS": "pk_private"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def shared_agent(folder: Path) -> Iterator[Launcher]:
    variables = {"PIPECAT_AGENT_NAME": "my-agent", "PCC_LOG_DIR": str(folder), **KEYS}
    with Launcher("gateway", PIPECAT_GATEWAY="1", **variables) as launcher:
        launcher.http.headers["authorization"] = "Bearer pk_private"
        yield launcher


@pytest.fixture
def agent(shared_agent: Launcher) -> Iterator[Launcher]:
    yield shared_agent
    stop_all(shared_agent)


def start(launcher: Launcher, **body: Any) -> str:
    answer = launcher.http.post("/v1/public/my-agent/start", json={"body": body})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["sessionId"])


def one(launcher: Launcher, session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = launcher.http.get(f"{SESSIONS}/{session_id}").json()
    return found


def test_there_is_one_agent(agent: Launcher) -> None:
    (service,) = agent.http.get(SERVICES, params={"include": "git"}).json()["services"]
    assert service["name"] == "my-agent"
    assert {"region", "id", "activeDeploymentId", "createdAt", "updatedAt"} <= set(service)


def test_an_agent_without_a_name_is_called_as_its_file(gateway: Launcher) -> None:
    (service,) = gateway.http.get(SERVICES).json()["services"]
    assert service["name"] == "bot"


def test_a_session_is_shown_while_it_runs_and_after_its_end(agent: Launcher) -> None:
    session_id = start(agent, do="stay")
    running = one(agent, session_id)
    assert (running["sessionId"], running["endState"], running["endedAt"]) == (session_id, "active", None)
    assert running in [
        {**line, "createdAt": running["createdAt"]} for line in agent.http.get(SESSIONS).json()["sessions"]
    ]
    agent.http.delete(f"{SESSIONS}/{session_id}")
    until(lambda: one(agent, session_id)["endState"] == "terminated", "its end")
    ended = one(agent, session_id)
    assert datetime.fromisoformat(ended["createdAt"]) < datetime.fromisoformat(ended["endedAt"])
    assert agent.http.get(SESSIONS).json() == {"sessions": []}
    listed = agent.http.get(SESSIONS, params={"endState": "terminated"}).json()["sessions"]
    assert listed[0] == ended
    assert agent.http.get(SESSIONS, params={"endState": "agent_error"}).json() == {"sessions": []}
    assert agent.http.get(f"{SESSIONS}/{'0' * 8}").status_code == 404


def test_a_bot_that_fails_is_an_agent_error(agent: Launcher) -> None:
    session_id = start(agent, do="raise")
    until(lambda: one(agent, session_id).get("endedAt"), "its end")
    assert (one(agent, session_id)["endState"], one(agent, session_id)["completionStatus"]) == ("agent_error", "500")


def test_the_last_log_lines_are_those_of_the_file(agent: Launcher, folder: Path) -> None:
    session_id = start(agent, do="raise")

    def own_records() -> list[dict[str, Any]]:
        written = [json.loads(line) for line in (folder / "bot.jsonl").read_text().splitlines()]
        return [record for record in written if record.get("session_id") == session_id]

    def all_are_there() -> bool:
        own = own_records()
        printed = any(record["stream"] == "stdout" for record in own)  # through another process
        return printed and any("Session ended" in record["line"] for record in own)

    def lines_and_own() -> tuple[list[dict[str, str]], list[dict[str, Any]]] | None:
        answer = agent.http.get(f"{SERVICES}/my-agent/logs", params={"limit": 1000, "sessionId": session_id})
        lines, own = answer.json()["logs"], own_records()
        return (lines, own) if len(lines) == len(own) > 1 else None  # else one came meanwhile, through another process

    until(all_are_there, "its last lines")
    lines, own = until(lines_and_own, "as many lines as the file has")
    assert [line["timestamp"] for line in lines] == [record["@timestamp"] for record in own]
    assert lines[0]["log"] == f"INFO: {own[0]['line']}"
    (last,) = agent.http.get(f"{SERVICES}/my-agent/logs", params={"limit": 1, "sessionId": session_id}).json()["logs"]
    assert last == lines[-1]
    for limit in ("many", "0", "-1", ""):
        assert agent.http.get(f"{SERVICES}/my-agent/logs", params={"limit": limit}).status_code == 400


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "bot.jsonl"
    line = json.dumps({"@timestamp": "now", "stream": "app", "level": "INFO", "line": "x" * 1000})
    count = cloud_api.MAX_LOG_BYTES // len(line) + 100
    with path.open("w") as file:
        file.writelines(f"{line}\n" for _ in range(count))
        file.write('{"@timestamp": "now", "stream": "stdout", "line": "printed"}\n5\n{"half')

    async def nobody(session_id: str) -> JSONResponse:
        raise AssertionError(session_id)

    registry = SessionRegistry(max_sessions=None, max_seconds=None, refusal=lambda: None)
    kept = cloud_api.CloudApi(Lifecycle(), registry, name="a", log_folder=str(tmp_path), shows_log=True, stop=nobody)
    told = json.loads(bytes(asyncio.run(kept.logs(limit=str(10 * cloud_api.MAX_LOG_LINES))).body))["logs"]
    assert len(told) == cloud_api.MAX_LOG_LINES
    found = cloud_api._last_lines(str(path), 3, None)
    assert [entry["log"][:9] for entry in found] == ["INFO: xxx", "INFO: xxx", "printed"]
    assert cloud_api._last_lines(str(tmp_path / "nothing"), 3, None) == []


def test_just_after_a_rotation_the_file_before_it_is_read_too(tmp_path: Path) -> None:
    for name, text in (("bot.jsonl.1", "before"), ("bot.jsonl", "after")):
        (tmp_path / name).write_text(json.dumps({"@timestamp": "now", "stream": "stdout", "line": text}) + "\n")
    found = cloud_api._last_lines(str(tmp_path / "bot.jsonl"), 10, None)
    assert [entry["log"] for entry in found] == ["before", "after"]


def test_without_a_folder_for_logs_it_says_how_to_have_them() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        answer = launcher.http.get(f"{SERVICES}/my-agent/logs")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_served")
    assert "set PCC_LOG_DIR to a folder" in answer.json()["error"]


def test_a_log_is_not_for_everybody(tmp_path: Path) -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1", PCC_LOG_DIR=str(tmp_path)) as launcher:
        answer = launcher.http.get(f"{SERVICES}/my-agent/logs")
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_served")
    assert "set PIPECAT_PRIVATE_API_KEYS" in answer.json()["error"]


@pytest.mark.parametrize("path", [SERVICES, f"{SERVICES}/my-agent/logs", f"{SESSIONS}/x", SESSIONS])
def test_a_key_for_starting_sessions_reads_none_of_it(agent: Launcher, path: str) -> None:
    answer = httpx.get(f"{agent.http.base_url}{path}", headers={"authorization": "Bearer pk_public"})
    assert answer.status_code in (401, 403)
    assert httpx.get(f"{agent.http.base_url}{path}").status_code == 401
