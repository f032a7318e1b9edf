"""One scripted session for each transport, in one process and in its own: the bot and the caller see the same."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from pipecat_base.server.handoff import WIND_DOWN_SECONDS
from tests.support.attackers import TEXT, dial, frame, upgrade
from tests.support.browser_peer import Browser
from tests.support.launchers import ROOT, Launcher, measured, until
from tests.support.offers import NO_ICE, play

BOT = """
import json, logging, threading
from loguru import logger
from pipecatcloud_system import app
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import PlainTextResponse


class Keys:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        headers = dict(scope["headers"])
        if scope["type"] == "http" and headers.get(b"x-key") != b"k" and scope["path"] == "/bot":
            await PlainTextResponse("no key", 401)(scope, receive, send)
        elif scope["type"] == "websocket" and headers.get(b"x-key") != b"k":
            await receive()
            await send({"type": "websocket.close", "code": 4401})
        else:
            await self.app(scope, receive, send)


app.add_middleware(CORSMiddleware, allow_origins=["https://page.example"], allow_methods=["*"])
app.add_middleware(Keys)


@app.get("/own/{name}")
async def own(name: str): return {"name": name}


def shown(value):
    return value if isinstance(value, (str, int, float, bool, type(None), list, dict)) else type(value).__name__


async def bot(args):
    logger.info("args " + json.dumps({name: shown(value) for name, value in sorted(vars(args).items())}))
    websocket = getattr(args, "websocket", None)
    if websocket is not None:
        scope = {name: shown(value) for name, value in sorted(websocket.scope.items())
                 if not name.startswith(("pipecat_base.", "fastapi"))}
        shown_headers = ([a.decode(), b.decode()] for a, b in websocket.scope["headers"])
        scope["headers"] = [pair for pair in shown_headers if pair[0] not in ("host", "sec-websocket-key")]
        scope["client"] = websocket.client.host
        scope["server"] = websocket.scope["server"][0]
        scope["extensions"] = sorted(scope.get("extensions") or {})
        scope["raw_path"] = websocket.scope["raw_path"].decode()
        scope["query_string"] = websocket.scope["query_string"].decode()
        scope["own"] = websocket.url_for("own", name="n").path
        scope["state"] = sorted(websocket.scope["state"])
        logger.info("scope " + json.dumps(scope))
        said = await websocket.receive_text()
        await websocket.send_text(said)
        if said == "raise":
            raise KeyError("name")
        if said == "wait":
            await websocket.receive_text()
    body = args.body if isinstance(args.body, dict) else {}
    if body.get("thread"):
        thread = threading.Thread(target=lambda: (logger.info("of a thread"), logging.warning("of its library")))
        thread.start()
        thread.join()
    if body.get("raise"):
        raise ValueError("secret text")
"""
MODES: dict[str, dict[str, Any]] = {
    "one process": {"PIPECAT_ISOLATION": "none"},
    "a process": {"PIPECAT_ISOLATION": "process"},
}
MODES["shared processes"] = {**MODES["a process"], "PIPECAT_CALLS_PER_PROCESS": "8"}
KEY = {"x-key": "k"}


@pytest.fixture(scope="module", params=["", "1"], ids=["pod", "gateway"])
def launchers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Launcher]]:
    folder: Path = tmp_path_factory.mktemp("bot")
    (folder / "bot.py").write_text(BOT)
    running: dict[str, Launcher] = {}
    try:
        for name, variables in MODES.items():
            gateway: dict[str, Any] = {"PIPECAT_GATEWAY": "1"} if request.param else {}
            running[name] = Launcher(folder, **variables, **gateway, DRAIN_NOTICE="0", MAX_SESSION_SECONDS="60")
        yield running
    finally:
        for launcher in running.values():
            launcher.kill()


def same(seen: dict[str, Any]) -> Any:
    """What was seen in each mode, which must be one thing."""
    first = seen["one process"]
    for name, other in seen.items():
        assert other == first, name
    return first


def logged(launcher: Launcher, session_id: str, *lasts: str) -> list[str]:
    """Levels and messages of a session's lines up to one of ``lasts``, without numbers that differ each time."""
    until(lambda: any(launcher.lines(f"| {session_id} - {last}") for last in lasts), "the last line")
    found = []
    for line in launcher.lines(f"| {session_id} - "):
        level = line.split("|")[1].strip()
        message = line.split(f"| {session_id} - ", 1)[1]
        if level in ("INFO", "WARNING", "ERROR"):
            found.append(f"{level} {re.sub(r'after [0-9.]+ s|in [0-9]+ ms|:[0-9]+|0x[0-9a-f]+', 'N', message)}")
    return sorted(found)


def answered(response: Any) -> tuple[int, dict[str, str], str]:
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("date", "x-daily-session-id", "sessionid")
    }
    return response.status_code, headers, re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", response.text)


REQUESTS: dict[str, tuple[str, str, dict[str, str], Any]] = {
    "a session": ("POST", "/bot", KEY, {"a": [1, "b"]}),
    "a bot that fails": ("POST", "/bot", KEY, {"raise": True}),
    "without the bot's key": ("POST", "/bot", {}, {}),
    "a page's preflight": (
        "OPTIONS",
        "/bot",
        {**KEY, "origin": "https://page.example", "access-control-request-method": "POST"},
        None,
    ),
    "from a page": ("POST", "/bot", {**KEY, "origin": "https://page.example"}, {}),
    "another method": ("PUT", "/bot", KEY, {}),
    "a bad limit": ("POST", "/bot", {**KEY, "x-pcc-max-session-seconds": "soon"}, {}),
    "not JSON": ("POST", "/bot", KEY, b"{"),
    "a bad id": ("POST", "/bot", {**KEY, "x-daily-session-id": "x" * 300}, {}),
    "a bad envelope": ("POST", "/bot", {**KEY, "x-pcc-start-envelope": "9"}, {}),
    "no offer": ("POST", "/api/offer", KEY, {}),
    "an offer that cannot be answered": ("POST", "/api/offer", KEY, {"sdp": "v=0", "type": "offer"}),
    "an unknown peer": ("POST", "/api/offer", KEY, {"sdp": "v=0", "type": "offer", "pc_id": "nobody"}),
    "candidates of an unknown peer": ("PATCH", "/api/offer", KEY, {"pc_id": "nobody", "candidates": []}),
    "candidates that are no JSON": ("PATCH", "/api/offer", KEY, b"["),
    "a file": ("POST", "/files", KEY, {}),
    "a route of the bot": ("GET", "/own/n", KEY, None),
    "nothing": ("GET", "/nothing", KEY, None),
    "no webhook": ("POST", "/whatsapp", KEY, {}),
    "a start": ("POST", "/start", KEY, {"transport": "plain", "body": {"b": 1}}),
    "a start that is none": ("POST", "/start", KEY, {"transport": "carrier pigeon"}),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_answered_alike(launchers: dict[str, Launcher], name: str) -> None:
    method, path, headers, body = REQUESTS[name]
    seen = {}
    for mode, launcher in launchers.items():
        session = {"x-daily-session-id": f"s-{abs(hash(name))}"} if path == "/bot" and "id" not in name else {}
        content = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        response = launcher.http.request(method, path, headers={**session, **headers}, content=content)
        lines = []
        if session and method == "POST" and response.status_code in (200, 400, 500):
            lines = logged(launcher, session["x-daily-session-id"], "POST /bot", "Refused")
        seen[mode] = (*answered(response), lines)
    print(name, same(seen))


@pytest.mark.parametrize("path", ["/ws", "/ws-client", "/ws/nothing"])
@pytest.mark.parametrize("said", ["return", "raise", "leave", "stop"])
def test_a_websocket_is_served_alike(launchers: dict[str, Launcher], path: str, said: str) -> None:
    seen: dict[str, Any] = {}
    for mode, launcher in launchers.items():
        session_id = f"ws-{said}-{path.replace('/', '-')}"
        headers = {**KEY, "x-daily-session-id": session_id, "user-agent": "tests"}
        url = f"ws://127.0.0.1:{launcher.port}{path}?body=eyJhIjogMX0"
        try:
            with connect(url, additional_headers=headers, subprotocols=["one", "two"]) as socket:  # type: ignore[list-item]
                socket.send("wait" if said in ("leave", "stop") else said)
                echoed = socket.recv(timeout=10)
                if said == "leave":
                    socket.close(4000)
                if said == "stop":
                    launcher.http.delete(f"/sessions/{session_id}")
                    if not launcher.http.get("/sessions").is_success:  # without a gateway
                        socket.close(4000)
                with pytest.raises(ConnectionClosed) as caught:
                    socket.recv(timeout=10)
            received = caught.value.rcvd and (caught.value.rcvd.code, caught.value.rcvd.reason)
            seen[mode] = (socket.subprotocol, echoed, received, logged(launcher, session_id, "Session ended"))
        except InvalidStatus as error:
            seen[mode] = (error.response.status_code, dict(error.response.headers).get("content-type"))
    print(same(seen))


def test_a_websocket_without_the_bots_key_is_refused_alike(launchers: dict[str, Launcher]) -> None:
    seen = {}
    for mode, launcher in launchers.items():
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://127.0.0.1:{launcher.port}/ws")
        seen[mode] = caught.value.response.status_code
    assert same(seen) == 403


@contextlib.contextmanager
def running(folder: Path, bot: str, mode: str) -> Iterator[Launcher]:
    (folder / "bot.py").write_text(bot)
    with Launcher(folder, **{**NO_ICE, "DRAIN_NOTICE": "0", **MODES[mode]}) as launcher:
        yield launcher


COMPRESSES = """
from pipecatcloud_system import app
from starlette.middleware.gzip import GZipMiddleware

app.add_middleware(GZipMiddleware, minimum_size=100)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_client_that_trickles_finds_its_call_where_the_bot_compresses(tmp_path: Path, mode: str) -> None:
    async def scenario() -> None:
        async with Browser(f"http://127.0.0.1:{launcher.port}") as browser:
            await browser.offer()
            patch: dict[str, Any] = {"pc_id": browser.pc_id, "candidates": []}
            assert (await browser.http.patch("/api/offer", json=patch)).status_code == 200

    echo = (ROOT / "examples" / "echo" / "bot.py").read_text()
    with running(tmp_path, echo + COMPRESSES, mode) as launcher:
        play(scenario)


CLOSE = 0x8
DEAF = """
import asyncio
from fastapi import WebSocket
from pipecatcloud_system import app


@app.websocket("/own")
async def own(websocket: WebSocket):
    await websocket.accept()
    await websocket.receive()


async def bot(args):
    await asyncio.sleep(60)
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_peer_that_closes_while_the_bot_does_not_listen_sees_the_end(tmp_path: Path, mode: str) -> None:
    with running(tmp_path, DEAF, mode) as launcher, upgrade(launcher) as sock:
        sock.settimeout(20)
        sock.sendall(frame(TEXT, b"hello") + frame(CLOSE, b"\x03\xe8"))
        assert until_end(sock) == b"\x88\x02\x03\xe8"


TALKATIVE = """
async def bot(args):
    for _ in range(256):
        await args.websocket.send_bytes(bytes(65536))
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_peer_that_reads_slowly_gets_all_that_was_said_and_the_close(tmp_path: Path, mode: str) -> None:
    with running(tmp_path, TALKATIVE, mode) as launcher, upgrade(launcher) as sock:
        sock.settimeout(20)
        said = bytearray()
        while data := sock.recv(2**18):
            said += data
            time.sleep(0.005)
        frame_of_audio = b"\x82\x7f" + (65536).to_bytes(8, "big") + bytes(65536)
        assert len(said) > 256 * len(frame_of_audio)
        assert bytes(said[256 * len(frame_of_audio) :]) == b"\x88\x12\x03\xe8the bot returned"


@pytest.mark.parametrize("mode", MODES)
def test_a_websocket_of_the_bots_own_ends_at_once(tmp_path: Path, mode: str) -> None:
    seconds = []
    with running(tmp_path, DEAF, mode) as launcher:
        for _ in range(3):
            with upgrade(launcher, "/own") as sock, measured() as since:
                sock.settimeout(20)
                sock.sendall(frame(CLOSE, b"\x03\xe8"))
                assert until_end(sock) == b"\x88\x02\x03\xe8"
                seconds.append(since())
    assert min(seconds) < WIND_DOWN_SECONDS


def until_end(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(1024), b""))


HANDSHAKE = {"host": "localhost", "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}


@pytest.mark.parametrize(("method", "without"), [("POST", ""), ("GET", "sec-websocket-version"), ("GET", "upgrade")])
def test_what_is_no_handshake_is_refused_alike(launchers: dict[str, Launcher], method: str, without: str) -> None:
    seen = {}
    for mode, launcher in launchers.items():
        headers = {**HANDSHAKE, "sec-websocket-key": base64.b64encode(bytes(16)).decode(), **KEY}
        headers.pop(without, None)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with dial(launcher) as sock:
            sock.settimeout(20)
            sock.sendall(f"{method} /ws HTTP/1.1\r\n{head}\r\n".encode())
            seen[mode] = sock.recv(1024).partition(b" ")[2][:3]
    assert same(seen) in (b"400", b"404", b"405", b"426")


def test_lines_of_a_bots_threads_have_its_session_where_the_process_has_only_that_one(
    launchers: dict[str, Launcher],
) -> None:
    for mode, launcher in launchers.items():
        body = {"thread": True}
        assert launcher.http.post("/bot", headers={**KEY, "x-daily-session-id": "threads"}, json=body).is_success
        launcher.wait_for_log("of its library")
        for text in ("of a thread", "of its library"):
            assert len(launcher.lines(f"| threads - {text}")) == (mode == "a process")


@pytest.mark.parametrize("folder", [None, "logs"])
def test_the_console_has_one_json_format(tmp_path: Path, folder: str | None) -> None:
    (tmp_path / "bot.py").write_text(
        BOT
        + '\n    print("printed")\n    import sys; print("to stderr", file=sys.stderr)'
        + "\n    import asyncio; await asyncio.sleep(0.3)\n"
    )
    seen: dict[str, Any] = {}
    for mode, variables in MODES.items():
        files: dict[str, Any] = {} if folder is None else {"PCC_LOG_DIR": str(tmp_path / mode.replace(" ", "-"))}
        with Launcher(tmp_path, **variables, **files, PIPECAT_LOG_FORMAT="json", DRAIN_NOTICE="0") as launcher:
            launcher.http.post("/bot", headers={**KEY, "x-daily-session-id": "s"}, json={"raise": True})
            launcher.http.post("/bot", headers={**KEY, "x-daily-session-id": "t"}, json={})
            launcher.stop()
            lines = [line for line in launcher.log().splitlines() if "POST" not in line and "Pipecat" not in line]
        found = []
        for line in lines:
            content = json.loads(line)
            if {"s", "t"} & {str(value) for value in content.values()} or "print" in line or "to std" in line:
                content = {name: type(value).__name__ for name, value in content.items()}
                found.append(json.dumps(content))
        seen[mode] = sorted(set(found))
    print(same(seen))
