"""Guards and routes read every spelling of a path alike."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Route, Router, WebSocketRoute
from starlette.types import Message, Receive, Scope, Send

from pipecat_base.auth.keys import KeyGuard, Keys
from pipecat_base.auth.pod_token import PodTokenGuard
from pipecat_base.errors import Malformed
from pipecat_base.server.paths import CAPABILITIES, POD, STARTS, STREAMS
from pipecat_base.server.request_path import PathSet, check, check_slashes
from tests.support.attackers import answer_of, dial, status_of
from tests.support.launchers import Launcher

KEY = {"authorization": "Bearer pk_0123456789abcdef"}
TOKEN = {"x-pipecat-pod-token": "pod_0123456789abcdef"}
GATEWAYS = (
    "/",
    "/start",
    "/status",
    "/sessions",
    "/sessions/s1",
    "/sessions/s1/bot",
    "/sessions/s1/api/offer",
    "/sessions/s1/ws-client",
    "/v1/public/agent/start",
    "/v1/agents/agent/sessions",
    "/telephony/twilio",
    "/daily-dialin-webhook",
    "/ws/twilio",
    "/page/page.js",
    "/v1/openapi.json",
)
APPENDED = (
    *("%0a", "%0A", "%0d", "%0d%0a", "%00", "%09", "%0b", "%1b", "%7f", "%20", "%c2%85", "%c2%a0", "%e2%80%a8"),
    *("%ff", "%c0%af", "%EF%BC%8F", "/", "//", "/.", "/..", "/%2e", "/%2e%2e", "/%2E%2e/x", "%2f", "%5c", "%5c..%5c"),
    *("%2f..%2f", ";x=1", "%3b", "%3f", "%3fx", "%23", "%23x", "%25", "%250a", "%2500", ".json", "*", "~", "@x", "/x"),
)


def spellings(path: str) -> Iterator[str]:
    """Odd spellings of a path: with additions after, before and in it, encoded once and twice."""
    yield path
    for odd in APPENDED:
        yield path + odd
        head, _, last = path.rpartition("/")
        yield f"{head}{odd}/{last}"
    for odd in ("%0a", "%00", "%09", "%20", "%2f", "%ff", "//", "/.", "/..", ";x"):
        yield odd.lstrip("/") + path
        yield f"/{odd.strip('/')}{path}"
        yield path.replace("/", f"/{odd.strip('/')}", 1)
    for encoded in ("%2f", "%2F", "%5c", "%252f", "//", "/./", "/x/../", "/x/%2e%2e/", "\\"):
        yield path.replace("/", encoded)
        yield path[0] + path[1:].replace("/", encoded)
    yield "".join(f"%{ord(c):02x}" if c.isalnum() else c for c in path)
    yield "".join(f"%25{ord(c):02x}" if c.isalnum() else c for c in path)
    yield path.upper()
    yield f"http://127.0.0.1{path}"
    yield f"/http://127.0.0.1{path}"


def status(launcher: Launcher, method: str, path: str) -> tuple[int, bytes]:
    """Send raw bytes, which no client normalizes."""
    with dial(launcher) as sock:
        if method == "WS":
            key = base64.b64encode(os.urandom(16)).decode()
            head = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
            head += f"sec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
            sock.sendall(head.encode())
            line = sock.recv(16)
            return status_of(line), b""
        body = b"{}" if method == "POST" else b""
        head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        head += "x-daily-room-url: https://evil.daily.co/room\r\nx-daily-room-token: t\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        answer = answer_of(sock)
        launcher.sockets.remove(sock)
        return status_of(answer), answer.partition(b"\r\n\r\n")[2]


REFUSED = {307, 400, 401, 403, 404, 405}
"""Not served; the target of a redirect is checked again."""


def odd_answers(launcher: Launcher, paths: tuple[str, ...], open_paths: tuple[str, ...]) -> list[str]:
    """Requests that were served although the canonical spelling is refused, or answered differently."""
    found = []
    for path in paths:
        for method in ("GET", "POST", "WS"):
            plain = status(launcher, method, path)[0]
            if path not in open_paths and plain not in REFUSED:
                found.append(f"{method} {path}: {plain}, plainly")
            for odd in dict.fromkeys(spellings(path)):
                told = status(launcher, method, odd)[0]
                if told not in REFUSED and not (told == plain and unquote_to_bytes(odd).decode() == path):
                    found.append(f"{method} {odd}: {told}, and {plain} without oddities")
    return found


def test_no_spelling_of_a_path_passes_a_pods_token() -> None:
    options = {"PIPECAT_POD_TOKEN": TOKEN["x-pipecat-pod-token"]}
    with Launcher("obedient", **options) as launcher:  # type: ignore[arg-type]
        assert odd_answers(launcher, POD, ("/livez", "/readyz", CAPABILITIES)) == []
        launcher.stop()
        assert "Session started" not in launcher.log()


def test_no_spelling_of_a_path_passes_the_keys() -> None:
    options = {
        "PIPECAT_GATEWAY": "1",
        "PIPECAT_PRIVATE_API_KEYS": "pk_0123456789abcdef",
        "PIPECAT_WEBSOCKET_AUTH": "token",
    }
    opened = ("/livez", "/readyz", CAPABILITIES, "/", "/page/page.js", "/v1/openapi.json")
    with Launcher("gateway", **options) as launcher:  # type: ignore[arg-type]
        assert odd_answers(launcher, (*POD, *GATEWAYS), opened) == []
        assert launcher.http.get("/sessions", headers=KEY).json() == {"sessions": []}
        launcher.stop()
        assert "Session started" not in launcher.log()


@pytest.fixture(scope="module")
def pod() -> Iterator[Launcher]:
    with Launcher("obedient") as launcher:
        yield launcher


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/bot%0a", "a control character"),
        ("/bot%c2%85", "a control character"),
        ("/bot%e2%80%a8", "a control character"),
        ("/x/%2e%2e/bot", "a dot segment"),
        ("/x/..%2fbot", "a dot segment"),
        ("/x/..%5cbot", "a dot segment"),
        ("/bot%ff", "not UTF-8"),
        ("/api%2Foffer", "An encoded slash"),
        ("http://localhost/bot", "begins with a slash"),
    ],
)
def test_an_ambiguous_path_is_refused_with_the_reason(path: str, why: str, pod: Launcher) -> None:
    code, body = status(pod, "POST", path)
    assert (code, why in body.decode()) == (400, True), body
    assert pod.http.get("/readyz").status_code == 200


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ("HEAD /./x HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        ("HEAD /bot%00 HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        ("HEAD * HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
        ("HEAD /x HTTP/1.1\r\nhost: localhost\r\n" + "a: b\r\n" * 200 + "\r\n", 431),
        ("HEAD /x HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        ("GET /./x HTTP/1.1\r\nhost: localhost\r\n\r\n", 400),
    ],
)
def test_a_refused_head_request_is_answered_without_a_body(pod: Launcher, head: str, code: int) -> None:
    with dial(pod) as sock:
        sock.sendall(head.encode())
        answer = answer_of(sock)
        pod.sockets.remove(sock)
    assert status_of(answer) == code
    assert bool(answer.partition(b"\r\n\r\n")[2]) is head.startswith("GET")
    assert "Traceback" not in pod.log()


def test_an_encoded_slash_chooses_no_route_of_the_gateway() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        for path in ("/sessions%2fs1", "/sessions/s1%2fapi/offer", "/v1%2Fagents/agent/sessions"):
            assert status(launcher, "GET", path)[0] == 400, path


def test_an_encoded_slash_that_changes_no_route_is_the_bots_to_read() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        assert launcher.http.get("/any/a%2Fb").json()["raw_path"] == "/any/a%2Fb"


def test_no_path_of_a_session_starts_another_session() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        started = launcher.http.post("/start", json={}).json()["sessionId"]
        for inner in ("bot%0a", "%62ot", "bot%2f", "x/%2e%2e/bot", "api%2foffer", "ws", "readyz"):
            assert status(launcher, "POST", f"/sessions/{started}/{inner}")[0] in (400, 404), inner
        assert [line["sessionId"] for line in launcher.http.get("/sessions").json()["sessions"]] == [started]


async def _nothing(scope: Scope, receive: Receive, send: Send) -> None: ...


def _served(app: Any, scope: Scope) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    asyncio.run(app(scope, receive, send))
    return sent


ODD = st.sampled_from(["%0a", "%0d", "%2f", "%2e", "%2e%2e", "..", "/", "//", "%00", "%62", "%85", "%c2%85", "\n", "x"])
PATHS = st.tuples(st.sampled_from((*STARTS, *STREAMS)), st.integers(0, 12), st.lists(ODD, max_size=3)).map(
    lambda drawn: drawn[0][: drawn[1]] + "".join(drawn[2]) + drawn[0][drawn[1] :]
)


@given(PATHS)
def test_a_guard_limits_what_the_router_behind_it_would_serve(raw: str) -> None:
    """Without the check in the server: the guards suffice."""
    served: list[str] = []

    async def answer(request: Any) -> PlainTextResponse:
        served.append(request.url.path)
        return PlainTextResponse("served")

    routes: list[BaseRoute] = [Route(path, answer, methods=["POST"]) for path in (*STARTS, *STREAMS)]
    routes += [Route(f"{path}/{{rest:path}}", answer, methods=["POST"]) for path in STREAMS]
    router = Router(routes, redirect_slashes=False)
    path = unquote_to_bytes(raw).decode(errors="replace")
    scope = {"type": "http", "method": "POST", "path": path, "raw_path": raw.encode(), "headers": [], "root_path": ""}
    scope |= {"query_string": b"", "server": ("localhost", 80), "scheme": "http"}
    sent = _served(PodTokenGuard(router, "token", STARTS + STREAMS), scope)
    assert served == []
    assert sent[0]["status"] in (401, 404)
    keyed = KeyGuard(PodTokenGuard(router, None, STARTS), Keys(["key"]), routes, ["/public/*"])
    _served(keyed, scope)
    assert all(path.startswith(STREAMS) for path in served)


@given(st.lists(st.sampled_from(["/", "bot", "%2f", "%2F", ".", "%2e", "%0a", "%ff", "\\", "%5c", "a", "%25"])))
def test_a_path_that_passes_is_unchanged_by_normalization(parts: list[str]) -> None:
    raw = "".join(parts).encode()
    try:
        check(raw)
    except Malformed:
        return
    path = unquote_to_bytes(raw).decode()
    assert path.startswith("/")
    assert not {".", ".."} & set(path.replace("\\", "/").split("/"))
    assert path.isprintable()


@pytest.mark.parametrize(
    ("raw", "is_refused"),
    [
        ("/sessions/a%2fb/bot", True),
        ("/sessions/a%2fbot", True),
        ("/sessions/a/any/x%2Fy", False),
        ("/sessions%2fa/x", True),
        ("/page/a%2fb", False),
        ("/other%2fx", False),
    ],
)
def test_an_encoded_slash_may_not_choose_the_route(raw: str, is_refused: bool) -> None:
    routes: list[BaseRoute] = [
        Route("/sessions/{session_id}", _nothing),
        Route("/sessions/{session_id}/{path:path}", _nothing),
        WebSocketRoute("/ws/{token}", _nothing),
    ]
    path = unquote_to_bytes(raw).decode()
    scope = {"type": "http", "method": "GET", "path": path, "raw_path": raw.encode(), "root_path": ""}
    if not is_refused:
        check_slashes(scope, routes)
        return
    with pytest.raises(Malformed):
        check_slashes(scope, routes)


@pytest.mark.parametrize("raw", ["/api%2foffer", "/api%2Foffer/x", "/%2fbot/%2f"])
def test_an_encoded_slash_may_not_lead_into_the_pods_paths(raw: str) -> None:
    paths = PathSet(["/api/offer", "//bot"], below=True)
    with pytest.raises(Malformed):
        paths.check_slashes(raw.encode())
    paths.check_slashes(b"/elsewhere%2fx")
