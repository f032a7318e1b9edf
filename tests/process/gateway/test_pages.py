"""Our page, the prebuilt client, and what is told of the gateway."""

from __future__ import annotations

import importlib.util
import re
import socket
from pathlib import Path

import pytest

from tests.support.launchers import Launcher

PAGE = Path(__file__).parents[3] / "pipecat_base" / "gateway" / "page"


def test_the_page_asks_nothing_of_any_other_origin(gateway: Launcher) -> None:
    answer = gateway.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    for file in PAGE.iterdir():
        found = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", file.read_text())
        assert set(found) <= {"http://www.w3.org"}, file.name  # the namespace of SVG


def test_every_file_that_the_page_names_is_served_with_its_type(gateway: Launcher) -> None:
    page = gateway.http.get("/").text
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    assert named
    for path in named:
        answer = gateway.http.get(f"/{path}")
        assert answer.status_code == 200, path
        kind = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}[path.rpartition(".")[2]]
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/page/../pages.py", b"400"),
        ("/page/%2e%2e/pages.py", b"400"),
        ("/page//etc/passwd", b"404"),
        ("/page/nothing", b"404"),
    ],
)
def test_nothing_else_is_served_beside_it(gateway: Launcher, path: str, status: bytes) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port)) as sock:  # a client would tidy the path up
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
        assert sock.makefile("rb").readline().split()[1] == status


def test_the_prebuilt_client_is_served_where_it_is_installed(gateway: Launcher) -> None:
    links = gateway.http.get("/status").json()["links"]
    if importlib.util.find_spec("pipecat_ai_prebuilt") is None:  # the runner of an older pipecat does not bring it
        assert links == {"client": None}
        assert gateway.http.get("/client/").status_code == 404
        return
    assert links == {"client": "/client/"}
    answer = gateway.http.get("/client/")
    assert answer.status_code == 200
    assert "<script" in answer.text
    assert gateway.http.get("/client").headers["location"] == "/client/"


def test_the_status_lists_transports_and_features(gateway: Launcher) -> None:
    content = gateway.http.get("/status").json()
    assert content["status"] == "ready"
    assert content["bot"] == "bot.py"
    assert {"webrtc", "websocket", "twilio"} <= set(content["transports"])
    assert "moq" not in content["transports"]
    assert content["features"][0]["name"] == "Daily Transport"
    agent = gateway.http.get("/v1/agents/my-agent").json()
    assert (agent["name"], agent["ready"], agent["activeSessionCount"]) == ("my-agent", True, 0)


def test_polling_is_kept_out_of_the_log(gateway: Launcher) -> None:
    gateway.http.get("/sessions")
    gateway.http.get("/sessions/nothing/x")
    gateway.wait_for_log("GET /sessions/nothing/x: unknown_session")  # a request is logged after its answer
    assert "GET /sessions 200" not in gateway.log()


def test_the_openapi_document_describes_the_gateway_and_not_the_bot(gateway: Launcher) -> None:
    paths = gateway.http.get("/v1/openapi.json").json()["paths"]
    assert {"/start", "/sessions", "/sessions/{session_id}/{path}", "/telephony/twilio", "/status"} <= set(paths)
    for path, operations in paths.items():
        named = set(re.findall(r"{(\w+)}", path))
        for operation in operations.values():
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == named, path
    assert "/any/{path}" not in paths
    assert "/any/{path}" in gateway.http.get("/openapi.json").json()["paths"]
