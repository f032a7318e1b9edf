"""What the command line of Pipecat Cloud, and its REST API's clients, ask about an agent that runs here."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipecat_base.gateway.cloud_api import logs
from pipecat_base.gateway.cloud_api.logs import CloudLogs, LogFilter
from tests.process.gateway.conftest import stop_all
from tests.support.launchers import Launcher, until

ORGANIZATION = "/v1/organizations/mine"
SERVICES = f"{ORGANIZATION}/services"
SESSIONS = f"{SERVICES}/my-agent/sessions"
LOGS = f"{SERVICES}/my-agent/logs"
KEYS: dict[str, Any] = {"PIPECAT_PUBLIC_API_KEYS": "pk_public", "PIPECAT_PRIVATE_API_KEYS": "pk_private"}
AT = "2026-01-02T03:04:05.678901+01:00"


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


def stop(launcher: Launcher, session_id: str) -> dict[str, Any]:
    """End a session; returns the agent's description of it."""
    launcher.http.delete(f"{SESSIONS}/{session_id}")
    return ended(launcher, session_id)


def ended(launcher: Launcher, session_id: str) -> dict[str, Any]:
    until(lambda: one(launcher, session_id)["endedAt"], "its end")
    return one(launcher, session_id)


def one(launcher: Launcher, session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = launcher.http.get(f"{SESSIONS}/{session_id}").json()
    return found


def ids(launcher: Launcher, **params: Any) -> list[str]:
    answer = launcher.http.get(SESSIONS, params={"limit": 1000, **params})
    assert answer.status_code == 200, answer.text
    return [session["sessionId"] for session in answer.json()["sessions"]]


def assert_listed_first(launcher: Launcher, session: dict[str, Any], **params: Any) -> None:
    first = launcher.http.get(SESSIONS, params=params).json()["sessions"][0]
    assert first == {name: session[name] for name in first}


@pytest.mark.parametrize("path", ["/v1/agents", SERVICES])
def test_there_is_one_agent_in_one_region(agent: Launcher, path: str) -> None:
    (service,) = agent.http.get(path, params={"include": "git"}).json()["services"]
    assert service["name"] == "my-agent"
    assert {"region", "id", "activeDeploymentId", "createdAt", "updatedAt"} <= set(service)
    assert agent.http.get(path, params={"region": service["region"]}).json() == {"services": [service]}
    assert agent.http.get(path, params={"region": "us-west"}).json() == {"services": []}


def test_an_agent_without_a_name_is_called_as_its_file(gateway: Launcher) -> None:
    (service,) = gateway.http.get(SERVICES).json()["services"]
    assert service["name"] == "bot"


@pytest.mark.parametrize("below", ["/v1", ORGANIZATION])
def test_there_is_one_region(agent: Launcher, below: str) -> None:
    (region,) = agent.http.get(f"{below}/regions").json()["regions"]
    (service,) = agent.http.get(SERVICES).json()["services"]
    assert region["code"] == service["region"]
    assert agent.http.get(f"{below}/properties").json() == {"properties": {"defaultRegion": region["code"]}}


@pytest.mark.parametrize("path", ["/v1/agents/my-agent", f"{SERVICES}/my-agent"])
def test_there_is_one_deployment(agent: Launcher, path: str) -> None:
    (deployment,) = agent.http.get(f"{path}/deployments").json()["deployments"]
    (service,) = agent.http.get(SERVICES, params={"includeActiveDeployment": "true"}).json()["services"]
    assert deployment["id"] == service["activeDeploymentId"]
    assert service["deployment"] == deployment
    found = agent.http.get(path).json()
    assert found.get("body", found)["deployment"] == deployment


def test_the_limit_of_sessions_is_the_deployments() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", MAX_SESSION_SECONDS="90") as launcher:
        found = launcher.http.get("/v1/agents/my-agent").json()
    assert found["deployment"]["manifest"]["spec"] == {"maxSessionDurationSeconds": 90}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "secrets"), ("PUT", "services"), ("DELETE", "services/my-agent"), ("GET", "a/b")]
)
def test_what_a_gateway_does_not_have_is_refused_with_the_reason(agent: Launcher, method: str, path: str) -> None:
    answer = agent.http.request(method, f"{ORGANIZATION}/{path}")
    assert (answer.status_code, answer.json()["reason"]) == (501, "not_supported")
    assert answer.json()["error"].startswith("A gateway ")


def test_a_small_response_comes_in_one_piece(agent: Launcher) -> None:
    """``pipecat cloud agent deployments`` closes its connection once it has the head."""
    head = f"GET /v1/regions HTTP/1.1\r\nHost: localhost:{agent.port}\r\nAuthorization: Bearer pk_private\r\n\r\n"
    with socket.create_connection(("127.0.0.1", agent.port), timeout=20) as sock:
        for _ in range(100):
            sock.sendall(head.encode())
            assert sock.recv(65536).endswith(b"}")


def test_a_session_is_shown_while_it_runs_and_after_its_end(agent: Launcher) -> None:
    session_id = start(agent, do="stay")
    running = one(agent, session_id)
    assert (running["sessionId"], running["endState"], running["endedAt"]) == (session_id, "active", None)
    assert_listed_first(agent, running)
    past = stop(agent, session_id)
    assert past["endState"] == "terminated"
    assert datetime.fromisoformat(past["createdAt"]) < datetime.fromisoformat(past["endedAt"])
    assert_listed_first(agent, past)
    assert_listed_first(agent, past, endState="terminated")
    assert session_id not in ids(agent, endState="agent_error")
    assert agent.http.get(f"{SESSIONS}/{'0' * 8}").status_code == 404


def test_a_bot_that_fails_is_an_agent_error(agent: Launcher) -> None:
    found = ended(agent, start(agent, do="raise"))
    assert (found["endState"], found["completionStatus"]) == ("agent_error", "500")


def test_sessions_are_filtered_and_paged(agent: Launcher) -> None:
    past = start(agent, do="return")
    ended(agent, past)
    running = start(agent, do="stay")
    assert ids(agent)[:2] == ids(agent, status="all")[:2] == [running, past]
    assert ids(agent, status="active") == ids(agent, endState="active") == [running]
    assert ids(agent, status="ended")[0] == past
    first, second = (agent.http.get(SESSIONS, params={"limit": 1, "offset": offset}).json() for offset in (0, 1))
    assert [page["sessions"][0]["sessionId"] for page in (first, second)] == [running, past]
    assert first["total_count"] == second["total_count"] == len(ids(agent))
    now = int(time.time())
    assert ids(agent, endTime=now - 3600) == ids(agent, startTime=now + 3600) == []
    assert ids(agent, startTime=now - 3600, endTime=now + 3600) == ids(agent)
    assert ids(agent, startType="warm") == ids(agent, startTimeMax=3600) == ids(agent)
    assert ids(agent, startType="cold") == ids(agent, startTimeMin=3600) == ids(agent, deploymentId="another") == []


def test_ten_sessions_are_a_page(agent: Launcher) -> None:
    for _ in range(11):
        ended(agent, start(agent, do="return"))
    answer = agent.http.get(SESSIONS).json()
    assert len(answer["sessions"]) == 10
    assert answer["total_count"] >= 11


@pytest.mark.parametrize(
    "state",
    ["active", "completed", "ended_before_agent_start", "agent_start_timeout", "terminated", "agent_error", "unknown"],
)
def test_sessions_of_each_end_state_can_be_listed(agent: Launcher, state: str) -> None:
    answer = agent.http.get(SESSIONS, params={"endState": state})
    assert answer.status_code == 200
    assert {session["endState"] for session in answer.json()["sessions"]} <= {state}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("endState", "none"),
        ("status", "running"),
        ("startType", "hot"),
        ("limit", "0"),
        ("limit", "many"),
        ("offset", "-1"),
        ("startTime", "yesterday"),
        ("endTime", "9" * 13),
        ("startTimeMin", "x"),
    ],
)
def test_a_wrong_parameter_of_the_list_is_named(agent: Launcher, name: str, value: str) -> None:
    answer = agent.http.get(SESSIONS, params={name: value})
    assert (answer.status_code, answer.json()["field"]) == (400, name)


def test_a_session_has_its_lifecycle(agent: Launcher) -> None:
    session_id = start(agent, do="stay")
    until(lambda: len(one(agent, session_id)["events"]) == 2, "its bot")
    codes = ["SESSION_START_INITIATED", "REQUEST_ARRIVED_AT_BOT"]
    running = one(agent, session_id)
    assert [event["eventCode"] for event in running["events"]] == codes
    assert isinstance(running["botStartSeconds"], int)
    found = stop(agent, session_id)
    assert [event["eventCode"] for event in found["events"]] == [*codes, "SESSION_COMPLETED"]
    times = [event["eventTs"] for event in found["events"]]
    assert times == sorted(times)
    assert (times[0], times[-1]) == (found["createdAt"], found["endedAt"])
    assert all(at.endswith("Z") for at in times)


def test_a_session_that_never_had_a_caller_never_arrived_at_the_bot(agent: Launcher) -> None:
    session_id = str(agent.http.post("/start", json={"transport": "webrtc"}).json()["sessionId"])
    waiting = one(agent, session_id)
    assert waiting["endState"] == "active"
    assert isinstance(waiting["botStartSeconds"], int)
    codes = [event["eventCode"] for event in stop(agent, session_id)["events"]]
    assert codes == ["SESSION_START_INITIATED", "SESSION_COMPLETED"]


def test_a_session_has_its_cpu_and_memory_while_it_runs_and_after_its_end(agent: Launcher) -> None:
    session_id = start(agent, do="stay")
    until(lambda: one(agent, session_id)["resourceMetrics"], "a sample")
    metrics = stop(agent, session_id)["resourceMetrics"]
    assert metrics["sessionId"] == session_id
    assert metrics["sampleCount"] == len(metrics["timeseries"]) >= 1
    for point in metrics["timeseries"]:
        assert abs(point["t"] - time.time()) < 60
        assert 0 <= point["c"] < 8000
        assert 10_000_000 < point["m"] < 2_000_000_000
    assert metrics["memoryBytesP50"] <= metrics["memoryBytesP90"] <= metrics["memoryBytesP99"]
    assert metrics["cpuMillicoresP99"] == max(point["c"] for point in metrics["timeseries"])


def test_a_short_session_has_a_sample_too(agent: Launcher) -> None:
    assert ended(agent, start(agent, do="return"))["resourceMetrics"]["sampleCount"] == 1


def test_the_last_log_lines_are_those_of_the_file(agent: Launcher, folder: Path) -> None:
    session_id = start(agent, do="raise")

    def own_records() -> list[dict[str, Any]]:
        written = [json.loads(line) for line in (folder / "bot.jsonl").read_text().splitlines()]
        return [record for record in written if record.get("session_id") == session_id]

    def all_are_there() -> bool:
        own = own_records()
        printed = any(record["stream"] == "stdout" for record in own)  # through another process
        return printed and any("Session ended" in record["line"] for record in own)

    def lines_and_own() -> tuple[list[dict[str, str]], list[dict[str, Any]], list[dict[str, str]]] | None:
        answer = agent.http.get(LOGS, params={"limit": 1000, "sessionId": session_id, "order": "asc"})
        newest = agent.http.get(LOGS, params={"limit": 1, "sessionId": session_id}).json()["logs"]
        lines, own = answer.json()["logs"], own_records()
        # Otherwise a line came meanwhile, through another process.
        return (lines, own, newest) if len(lines) == len(own) > 1 else None

    until(all_are_there, "its last lines")
    lines, own, newest = until(lines_and_own, "as many lines as the file has")
    told = [datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines]
    assert told == pytest.approx([datetime.fromisoformat(record["@timestamp"]).timestamp() for record in own], abs=0.01)
    assert lines[0]["log"] == f"INFO: {own[0]['line']}"
    assert newest == lines[-1:]
    for limit in ("many", "0", "-1", ""):
        assert agent.http.get(LOGS, params={"limit": limit}).status_code == 400


def test_the_log_is_searched_ordered_and_paged(agent: Launcher) -> None:
    session_id = start(agent, do="stay")

    def found(path: str = LOGS, **params: Any) -> list[dict[str, str]]:
        lines: list[dict[str, str]] = agent.http.get(path, params={"sessionId": session_id, **params}).json()["logs"]
        return lines

    # The line of the request, what the bot printed, and the start.
    lines = until(lambda: lines if len(lines := found()) >= 3 else None, "its lines")
    assert lines == found(order="desc") == found("/v1/agents/my-agent/logs") == found(order="asc")[::-1]
    (started,) = found(query="session STARTED")
    assert started["log"].startswith("INFO: Session started")
    assert found(query="no such words") == []
    assert found(limit=1) + found(limit=1, offset=1) == lines[:2]
    now = int(time.time())
    assert found(endTime=now - 3600) == found(startTime=now + 3600) == found(deploymentId="another") == []
    assert found(startTime=now - 3600, endTime=now + 3600, deploymentId=lines[0]["deploymentId"]) == lines
    params = {"query": "session started", "sessionId": session_id, "limit": "1"}
    assert agent.http.get(LOGS, params=params).json()["total"] == {"value": 1, "relation": "eq"}


@pytest.mark.parametrize(("name", "value"), [("order", "up"), ("startTime", "x"), ("endTime", "1.5"), ("offset", "x")])
def test_a_wrong_parameter_of_the_log_is_named(agent: Launcher, name: str, value: str) -> None:
    answer = agent.http.get(LOGS, params={name: value})
    assert (answer.status_code, answer.json()["field"]) == (400, name)


def test_the_log_has_no_lines_about_those_who_read_it(agent: Launcher) -> None:
    session_id = start(agent, do="stay")
    paths = (SERVICES, f"{SERVICES}/my-agent", SESSIONS, f"{SESSIONS}/{session_id}", LOGS, "/v1/agents")
    for path in paths:
        assert agent.http.get(path).status_code == 200
    agent.http.post("/v1/public/my-agent/start", json={})
    for path in paths:
        assert agent.http.get(LOGS, params={"query": f"GET {path} 200"}).json()["logs"] == []


def test_of_a_long_log_the_end_is_read(tmp_path: Path) -> None:
    line = json.dumps({"@timestamp": AT, "stream": "app", "level": "INFO", "line": "x" * 1000})
    printed = json.dumps({"@timestamp": AT, "stream": "stdout", "line": "printed"})
    count = logs.MAX_LOG_BYTES // len(line) + 100
    with (tmp_path / "bot.jsonl").open("w") as file:
        file.writelines(f"{line}\n" for _ in range(count))
        file.write(f'{printed}\n5\n{{"half')
    answer = asyncio.run(CloudLogs(str(tmp_path), is_shown=True).list(limit=str(10 * logs.MAX_LOG_LINES)))
    found = json.loads(bytes(answer.body))
    assert len(found["logs"]) == logs.MAX_LOG_LINES
    assert found["total"]["relation"] == "gte"
    assert [entry["log"][:9] for entry in found["logs"][:3]] == ["printed", "INFO: xxx", "INFO: xxx"]
    assert found["logs"][0]["timestamp"] == "2026-01-02T02:04:05.678Z"
    assert logs.search(str(tmp_path / "nothing"), LogFilter()) == ([], True)


def test_just_after_a_rotation_the_file_before_it_is_read_too(tmp_path: Path) -> None:
    for name, text in (("bot.jsonl.1", "before"), ("bot.jsonl", "after")):
        (tmp_path / name).write_text(json.dumps({"@timestamp": AT, "stream": "stdout", "line": text}) + "\n")
    found, is_whole = logs.search(str(tmp_path / "bot.jsonl"), LogFilter())
    assert [record.text for record in found] == ["before", "after"]
    assert is_whole


def test_without_a_folder_for_logs_it_says_how_to_have_them() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        answer = launcher.http.get(LOGS)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_served")
    assert "set PCC_LOG_DIR to a folder" in answer.json()["error"]


def test_a_log_is_not_for_everybody(tmp_path: Path) -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1", PCC_LOG_DIR=str(tmp_path)) as launcher:
        answer = launcher.http.get(LOGS)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_served")
    assert "set PIPECAT_PRIVATE_API_KEYS" in answer.json()["error"]


@pytest.mark.parametrize(
    "path",
    [SERVICES, LOGS, f"{SESSIONS}/x", SESSIONS, "/v1/agents", "/v1/users", "/v1/regions", f"{ORGANIZATION}/a/b"],
)
def test_a_key_for_starting_sessions_reads_none_of_it(agent: Launcher, path: str) -> None:
    answer = httpx.get(f"{agent.http.base_url}{path}", headers={"authorization": "Bearer pk_public"})
    assert answer.status_code in (401, 403)
    assert httpx.get(f"{agent.http.base_url}{path}").status_code == 401
