"""A session's flow: in the envelope of POST /bot, and in a file that the platform leaves for a WebSocket."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.launchers import Launcher, measured

FLOW = '{"nodes": ["s3cr3t-flow"]}'


@pytest.mark.parametrize("body", [{"a": 1}, None, [1, 2], "text", {}])
def test_an_envelope_carries_body_and_flow(obedient: Launcher, body: Any) -> None:
    session_id = f"env-{json.dumps(body)}"
    envelope = {"body": body, "flow_config": FLOW, "other": 1}
    assert obedient.post(envelope, x_daily_session_id=session_id, x_pcc_start_envelope="1").status_code == 200
    given = obedient.arguments(session_id)
    assert (given["body"], given["flow_config"]) == (body, FLOW)
    assert "s3cr3t-flow" not in "".join(line for line in obedient.lines("s3cr3t-flow") if not line.startswith("{"))


@pytest.mark.parametrize(
    ("content", "version", "field", "message"),
    [
        ([1], "1", "body", "start envelope needs both 'body' and 'flow_config'"),
        ({}, "1", "body", "start envelope needs both 'body' and 'flow_config'"),
        ({"flow_config": "x"}, "1", "body", "start envelope needs both 'body' and 'flow_config'"),
        ({"body": {}}, "1", "body", "start envelope needs both 'body' and 'flow_config'"),
        ({"body": {}, "flow_config": {}}, "1", "body.flow_config", "'flow_config' must be non-empty text"),
        ({"body": {}, "flow_config": None}, "1", "body.flow_config", "'flow_config' must be non-empty text"),
        ({"body": {}, "flow_config": " \n"}, "1", "body.flow_config", "'flow_config' must be non-empty text"),
        ({"body": {}, "flow_config": "x"}, "2", "x-pcc-start-envelope", "unsupported start envelope version '2'"),
        ({"body": {}, "flow_config": "x"}, "", "x-pcc-start-envelope", "unsupported start envelope version ''"),
        ({"body": {}, "flow_config": "x"}, "1.0", "x-pcc-start-envelope", "unsupported start envelope version '1.0'"),
    ],
)
def test_a_malformed_envelope_is_400_and_runs_no_bot(
    obedient: Launcher, content: Any, version: str, field: str, message: str
) -> None:
    session_id = f"malformed-{version}-{json.dumps(content)}"
    response = obedient.post(content, x_daily_session_id=session_id, x_pcc_start_envelope=version)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["field"]) == (400, "malformed", field)
    assert message in error["message"]
    assert not obedient.lines(f"| {session_id} - Session started")


def test_half_a_character_is_no_text(obedient: Launcher) -> None:
    content = b'{"body": {}, "flow_config": "\\ud800"}'
    response = obedient.http.post("/bot", content=content, headers={"x-pcc-start-envelope": "1"})
    assert (response.status_code, response.json()["error"]["field"]) == (400, "body.flow_config")


def test_without_the_header_an_envelope_is_a_body_like_any_other(obedient: Launcher) -> None:
    obedient.post({"body": 1, "flow_config": 2}, x_daily_session_id="env-none")
    given = obedient.arguments("env-none")
    assert (given["body"], given["flow_config"]) == ({"body": 1, "flow_config": 2}, None)


def test_a_daily_session_has_the_flow_too(obedient: Launcher) -> None:
    envelope = {"body": {}, "flow_config": FLOW}
    room = {"x_daily_room_url": "https://d/r", "x_daily_room_token": "t"}
    obedient.post(envelope, x_daily_session_id="env-daily", x_pcc_start_envelope="1", **room)
    given = obedient.arguments("env-daily")
    assert (given["room_url"], given["flow_config"]) == ("https://d/r", FLOW)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("session-files")


@pytest.fixture(scope="module")
def launcher(files: Path) -> Iterator[Launcher]:
    with Launcher("obedient", PCC_SESSION_FILES_DIR=str(files), MAX_SESSIONS="1") as running:
        yield running


def dial(launcher: Launcher, session_id: str, file: bytes | str | None, path: str = "/ws") -> int:
    """The status with which the handshake ends: 101 when a session has run."""
    headers: dict[str, Any] = {"x-daily-session-id": session_id}
    if isinstance(file, str):
        headers["X-Pcc-Flow-Config-File"] = file
    try:
        with connect(launcher.websocket_url(path), proxy=None, additional_headers=headers) as websocket:
            for _ in websocket:
                pass
    except InvalidStatus as refused:
        return refused.response.status_code
    return 101


@pytest.mark.parametrize("path", ["/ws", "/ws-client"])
@pytest.mark.parametrize("content", [FLOW, "\ufeffflow", "é" * 200_000])
def test_a_websocket_has_the_flow_of_its_file(launcher: Launcher, files: Path, path: str, content: str) -> None:
    session_id = f"file-{path}-{len(content)}"
    (files / "flow.json").write_text(content)
    assert dial(launcher, session_id, "flow.json", path) == 101
    assert launcher.arguments(session_id)["flow_config"] == content


@pytest.mark.parametrize("path", ["/ws", "/ws-client"])
def test_a_websocket_without_a_file_has_none(launcher: Launcher, path: str) -> None:
    assert dial(launcher, f"without-{path}", None, path) == 101
    given = launcher.arguments(f"without-{path}")
    assert given["flow_config"] is None


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "'' is not a bare filename"),
        (".", "'.' is not a bare filename"),
        ("..", "'..' is not a bare filename"),
        ("../secret", "'../secret' is not a bare filename"),
        ("a/b", "'a/b' is not a bare filename"),
        ("a\\b", "'a\\b' is not a bare filename"),
        ("absent", "cannot read {files}/absent: No such file or directory"),
        ("link", "cannot read {files}/link: Too many levels of symbolic links"),
        ("folder", "{files}/folder is not a regular file"),
        ("fifo", "{files}/fifo is not a regular file"),
        ("socket", "cannot read {files}/socket: No such device or address"),
        ("binary", "{files}/binary is not UTF-8 text"),
        ("blank", "{files}/blank is empty"),
        ("empty", "{files}/empty is empty"),
        ("large", "{files}/large is larger than 10485760 bytes (MAX_BODY_BYTES)"),
        ("n" * 300, "'nnn"),
    ],
)
def test_a_file_that_cannot_be_used_refuses_the_session(launcher: Launcher, files: Path, name: str, why: str) -> None:
    (files.parent / "secret").write_text("s3cr3t-outside")
    if name == "link" and not (files / "link").is_symlink():
        (files / "link").symlink_to(files.parent / "secret")
    if name == "folder":
        (files / "folder").mkdir(exist_ok=True)
    if name == "fifo" and not (files / "fifo").exists():
        os.mkfifo(files / "fifo")
    if name == "socket" and not (files / "socket").exists():
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(str(files / "socket"))
    if name == "large":
        with open(files / "large", "wb") as file:
            file.truncate(11 * 1024 * 1024)
    contents = {"binary": b"s3cr3t-\xff", "blank": b" \n\t ", "empty": b""}
    if name in contents:
        (files / name).write_bytes(contents[name])
    session_id = f"refused-{len(launcher.log())}"
    with measured() as seconds:
        assert dial(launcher, session_id, name) == 403
        assert seconds() < 5  # a FIFO that nobody writes would never open
    launcher.wait_for_log(f"| {session_id} - Refused ")
    (line,) = launcher.lines(f"| {session_id} - ")
    assert "| ERROR " in line
    assert f"names a file this app cannot use: {why.format(files=files)}" in line.replace("\\\\", "\\")
    assert "s3cr3t" not in launcher.log().replace("s3cr3t-flow", "")
    # It took no place: the only one is free.
    assert dial(launcher, f"after-{session_id}", None) == 101


def test_a_file_without_a_folder_to_look_in_refuses_the_session(obedient: Launcher) -> None:
    assert dial(obedient, "no-folder", "flow.json") == 403
    obedient.wait_for_log("| no-folder - Refused ")
    (line,) = obedient.lines("| no-folder - ")
    assert "PCC_SESSION_FILES_DIR is not set" in line


def test_a_flow_that_cannot_be_used_leaves_the_token_good(tmp_path: Path) -> None:
    from pipecat_base.auth.tokens import Tokens

    variables: dict[str, Any] = {"PIPECAT_WEBSOCKET_AUTH": "token", "PIPECAT_WEBSOCKET_SECRET": "sh4red-key"}
    with Launcher("obedient", PCC_SESSION_FILES_DIR=str(tmp_path), **variables) as launcher:
        token = Tokens("sh4red-key").mint()
        assert dial(launcher, "first", "flow.json", f"/ws/{token}") == 403
        (tmp_path / "flow.json").write_text(FLOW)
        assert dial(launcher, "second", "flow.json", f"/ws/{token}") == 101
        assert launcher.arguments("second")["flow_config"] == FLOW
        assert dial(launcher, "third", "flow.json", f"/ws/{token}") == 403


def test_a_caller_of_the_gateway_names_no_file(tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text(FLOW)
    with Launcher("obedient", PIPECAT_GATEWAY="1", PCC_SESSION_FILES_DIR=str(tmp_path)) as launcher:
        started = launcher.http.post("/start", json={"transport": "websocket"}).json()
        path = started["wsUrl"].partition(str(launcher.port))[2]
        assert dial(launcher, started["sessionId"], "flow.json", path) == 101
        assert launcher.arguments(started["sessionId"])["flow_config"] is None
