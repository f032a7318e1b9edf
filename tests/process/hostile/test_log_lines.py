"""External values that would write control codes to a terminal, forge a log line, or fill the disk."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.attackers import answer_of, dial
from tests.support.daily_api import DailyApi
from tests.support.graph_api import Graph
from tests.support.launchers import Launcher, until

C0 = "".join(map(chr, range(0x01, 0x20))) + "\x7f"
C1 = "".join(map(chr, range(0x80, 0xA0)))
FORGED = "2026-11-28 13:15:48.000 | CRITICAL | forged:forged:1 | NONE - forged"
CONTROLS = (
    f"\x1b[2J\u202e{C0}{C1}\u2028\u2029\u200e\u200f\u202a\u2066\u2069\ufeff"
    f"\r\n{FORGED}\n{FORGED}\u2028{FORGED}\x85{FORGED}"
)
LONG = 20_000
"""Characters: several times the longest log line."""
WHOLE_HEAD = 900_000
"""Characters: nearly the largest head."""
LONGEST_LINE = 4096 + 512
"""Characters of a log line: the message and its prefix."""
APP_SECRET = "app-s3cr3t"
BOT = """
from fastapi import Request
from pipecat.runner.utils import parse_telephony_websocket

from pipecatcloud_system import app


@app.get("/who")
async def who(request: Request):
    return list(request.client)


@app.api_route("/mine/{rest:path}", methods=["GET", "POST"])
async def mine(rest: str):
    return {}


async def bot(args):
    websocket = getattr(args, "websocket", None)
    if websocket is not None:
        await parse_telephony_websocket(websocket)
    elif (getattr(args, "body", None) or {}).get("raise"):
        raise ValueError(args.body["raise"])
"""
PATHS = (
    "/bot",
    "/api/offer",
    "/ws",
    "/ws-client",
    "/whatsapp",
    "/files",
    "/livez",
    "/pcc/capabilities",
    "/mine/x",
    "/start",
    "/v1/public/agent/start",
    "/sessions",
    "/sessions/s-1",
    "/sessions/s-1/mine/x",
    "/sessions/s-1/ws-client",
    "/v1/public/agent/sessions/s-1/mine/x",
    "/status",
    "/telephony",
    "/daily-dialin-webhook",
    "/v1/public/webhooks/org/agent/dialin",
    "/v1/public/webhooks/org/agent/whatsapp",
    "/ws/twilio",
    "/nowhere",
)
HEADERS = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-daily-session-id",
    "x-daily-room-url",
    "x-daily-room-token",
    "x-daily-transport-type",
    "x-moq-relay-url",
    "x-moq-namespace",
    "x-pcc-max-session-seconds",
    "x-pcc-start-envelope",
    "x-pcc-flow-config-file",
    "x-pipecat-pod-token",
    "x-hub-signature-256",
    "x-twilio-signature",
    "x-pinless-signature",
    "authorization",
    "content-type",
    "origin",
    "traceparent",
    "user-agent",
    "sec-websocket-protocol",
)
FIELDS = (
    "transport",
    "body",
    "createDailyRoom",
    "dailyRoomProperties",
    "dailyMeetingTokenProperties",
    "namespace",
    "sdp",
    "type",
    "pc_id",
    "candidates",
    "request_data",
    "From",
    "To",
    "callId",
    "callDomain",
    "sipHeaders",
    "flow_config",
    "CallSid",
)


@pytest.fixture(params=["pod", "gateway", "json"])
def launcher(request: pytest.FixtureRequest, tmp_path: Path, daily: DailyApi) -> Iterator[Launcher]:
    (tmp_path / "bot.py").write_text(BOT)
    variables: dict[str, Any] = {
        "PCC_LOG_DIR": str(tmp_path / "lane"),
        "PCC_SESSION_FILES_DIR": str(tmp_path),
        "PIPECAT_REPORTS_DIR": str(tmp_path / "reports"),
        "PIPECAT_UPLOADS_FOLDER": str(tmp_path / "uploads"),
        "WHATSAPP_TOKEN": "token-s3cr3t",
        "WHATSAPP_PHONE_NUMBER_ID": "1",
        "WHATSAPP_APP_SECRET": APP_SECRET,
        "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN": "verify-s3cr3t",
        "DAILY_API_KEY": daily.key,
        "DAILY_API_URL": daily.url,
        "MAX_SESSION_SECONDS": "20",
        "DRAIN_NOTICE": "0",
        "SHUTDOWN_TIMEOUT": "1",
    }
    if request.param != "pod":
        variables.update(PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1")
    if request.param == "json":
        variables["PIPECAT_LOG_FORMAT"] = "json"
    with Graph() as graph, Launcher(tmp_path, **{**graph.variables, **variables}) as running:
        yield running


def request(launcher: Launcher, head: bytes, body: bytes = b"") -> None:
    """Send one request as raw bytes."""
    sock = dial(launcher)
    with contextlib.suppress(OSError):
        sock.sendall(head + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        answer_of(sock)
    sock.close()


def shake_hands(launcher: Launcher, target: bytes, headers: bytes = b"") -> None:
    """A WebSocket handshake, disconnected at once."""
    sock = dial(launcher)
    head = b"GET " + target + b" HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    with contextlib.suppress(OSError):
        sock.sendall(
            head + b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n" + headers + b"\r\n"
        )
        sock.recv(1)
    sock.close()


def in_header(text: str) -> list[bytes]:
    """Encode a header value: UTF-8, and the upper half of Latin-1 as single bytes."""
    allowed = "".join(c for c in text if c not in "\r\n")
    return [allowed.encode(), allowed.encode("latin-1", "ignore")]


def attack_heads(launcher: Launcher) -> None:
    """Headers, paths, queries and methods."""
    values = [value for text in (CONTROLS, f"fe80::1%{CONTROLS}") for value in in_header(text)]
    long = b"fe80::1%" + b"x" * LONG
    for path in PATHS:
        for value in (*values[2:], long):
            for method in ("GET", "POST"):
                first = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n".encode()
                request(launcher, first + b"x-forwarded-for: " + value + b"\r\n", b"{}")
    for path in ("/bot", "/api/offer", "/files", "/whatsapp", "/start", "/telephony", "/daily-dialin-webhook"):
        for name in HEADERS:
            for value in (values[0], long):
                head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{name}: ".encode() + value + b"\r\n"
                request(launcher, head, b"{}")
    for name in HEADERS:
        for stream in (b"/ws", b"/ws-client", b"/ws/twilio", b"/sessions/s-1/ws-client"):
            for value in (values[1], long):
                shake_hands(launcher, stream, name.encode() + b": " + value + b"\r\n")
    for text in (quote(CONTROLS), "x" * LONG, quote("\u202e") * (LONG // 9)):
        for path in PATHS:
            for target in (f"{path}/{text}", f"{path}?body={text}&hub.mode={text}&transport={text}"):
                request(launcher, f"GET {target} HTTP/1.1\r\nhost: localhost\r\n".encode())
                request(launcher, f"POST {target} HTTP/1.1\r\nhost: localhost\r\n".encode(), b"{}")
                shake_hands(launcher, target.encode())
        request(launcher, f"GET /{text} HTTP/1.1\r\nhost: localhost\r\n".encode())
    request(launcher, b"GET /\xc2\x9b31m\xe2\x80\xae\x9b HTTP/1.1\r\nhost: localhost\r\n")
    whole = "x" * WHOLE_HEAD
    for line in (
        f"{whole} /nowhere HTTP/1.1",
        f"GET /{whole} HTTP/1.1",
        f"GET /sessions/{whole} HTTP/1.1",
        f"POST /bot HTTP/1.1\r\nx-forwarded-for: {whole}",
        f"POST /bot HTTP/1.1\r\nx-daily-session-id: {whole}",
    ):
        request(launcher, f"{line}\r\nhost: localhost\r\n".encode(), b"{}")
    for value in values:
        request(launcher, b"GET / HTTP/1.1\r\nhost: " + value + b"\r\n")


def attack_bodies(launcher: Launcher, daily: DailyApi) -> None:
    """Fields of JSON and of forms, names of files, signed webhooks."""
    posts = [path for path in PATHS if path not in ("/livez", "/status")]
    for value in (CONTROLS, [CONTROLS], {CONTROLS: CONTROLS}, "x" * LONG, {"x" * LONG: 1}):
        for path in posts:
            for field in FIELDS if isinstance(value, str) and len(value) < LONG else FIELDS[:6]:
                for good in ({}, {"From": "1", "To": "1", "callId": "1", "callDomain": "1", "transport": "daily"}):
                    launcher.http.post(path, json={**good, field: value})
    for value in (CONTROLS, "x" * LONG):
        launcher.http.post("/bot", json={"raise": value})
        launcher.http.post("/telephony", data=dict.fromkeys(FIELDS, value))
        launcher.http.post("/files", files={"file": (value, b"a", "text/plain")})
        launcher.http.post("/files", files={"file": ("a", b"a", value.replace("\r", "").replace("\n", "")[:500])})
        launcher.http.patch("/api/offer", json={"pc_id": value, "candidates": [{"candidate": value}]})
        for event in ({"id": value, "event": value}, {"id": value, "event": "connect", "from": value, "session": {}}):
            content = {"entry": [{"changes": [{"value": {"calls": [event]}}]}]}
            raw = json.dumps(content).encode()
            signature = hmac.new(APP_SECRET.encode(), raw, hashlib.sha256).hexdigest()
            for path in ("/whatsapp", "/v1/public/webhooks/org/agent/whatsapp"):
                launcher.http.post(path, content=raw, headers={"x-hub-signature-256": f"sha256={signature}"})


def attack_streams(launcher: Launcher) -> None:
    """First messages of phone calls, and reasons of closes."""
    for value in (CONTROLS, "x" * 200_000):
        starts: list[dict[str, Any]] = [
            {"event": "start", "start": {"streamSid": value, "callSid": value, "customParameters": {value: value}}},
            {"event": "start", "stream_id": value, "start": {"call_control_id": value, "media_format": {}}},
            {"event": "start", "start": {"callId": value, "streamId": value}},
            {"event": "start", "start": {"stream_sid": value, "call_sid": value, "account_sid": value}},
        ]
        for start in starts:
            with (
                contextlib.suppress(ConnectionClosed),
                connect(launcher.websocket_url(), proxy=None, close_timeout=2) as websocket,
            ):
                websocket.send(json.dumps({"event": value}))
                websocket.send(json.dumps(start))
                websocket.recv(timeout=5)


def check(what: str, content: str) -> None:
    """No control codes, no forged line, no line too long."""
    raw = {c for c in content if not c.isprintable()} - {"\n"}
    lines = content.split("\n")
    forged = [line for line in lines if re.match(r"\d{4}-\S+ \S+ \| CRITICAL", line)]
    longest = max(map(len, lines))
    found = f"{what}: {len(raw)} kinds of raw characters, {len(forged)} forged lines, longest: {longest}"
    assert (raw, forged, longest <= LONGEST_LINE) == (set(), [], True), found


def check_json(what: str, content: str) -> None:
    """Like :func:`check`, for JSON lines, whose values may contain line ends."""
    for line in content.split("\n"):
        assert line.isprintable(), f"{what}: {line[:300]!a}"
        check(what, json.loads(line).get("line", line) if line else line)


def test_no_value_from_outside_draws_in_a_log_forges_a_line_or_makes_a_long_one(
    launcher: Launcher, tmp_path: Path, daily: DailyApi
) -> None:
    attack_heads(launcher)
    attack_bodies(launcher, daily)
    attack_streams(launcher)
    assert launcher.is_ready()
    launcher.stop()
    log = launcher.raw_log()
    assert "ws" in log
    (check_json if log.startswith("{") else check)("the log", log)
    check_json("calls.jsonl", (tmp_path / "reports" / "calls.jsonl").read_text())
    check_json("bot.jsonl", (tmp_path / "lane" / "bot.jsonl").read_text())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "bot.py").write_text(BOT)
    with Launcher(folder, PIPECAT_GATEWAY="1", PIPECAT_INSECURE="1") as running:
        yield running


@pytest.mark.parametrize(
    "path",
    [
        "/ws/TOKEN",
        "/ws-client/TOKEN",
        "/ws/twilio/TOKEN",
        "/ws%2Dclient/TOKEN",
        "/%77s/TOKEN",
        "/ws%2FTOKEN",
        "/%2577s/TOKEN",
        "//ws/TOKEN",
        "/WS/TOKEN",
        "/sessions/s-1/ws-client/TOKEN",
        "/sessions/s-1/ws/TOKEN",
        "/ws%20/TOKEN",
    ],
)
def test_a_token_in_a_path_is_not_logged_however_the_path_is_spelled(gateway: Launcher, path: str) -> None:
    before = gateway.log().count("/...")
    request(gateway, f"GET {path} HTTP/1.1\r\nhost: localhost\r\n".encode())
    shake_hands(gateway, path.encode())
    until(lambda: gateway.log().count("/...") > before, "the line of the request")
    assert "TOKEN" not in gateway.log()


@pytest.mark.parametrize(
    ("forwarded", "wanted"),
    [
        ("198.51.100.1", "198.51.100.1"),
        ("fe80::1", "fe80::1"),
        ("fe80::1%\x1b[2J", "127.0.0.1"),
        ("\x1b[2J", "127.0.0.1"),
        ("x" * LONG, "127.0.0.1"),
        ("somebody", "127.0.0.1"),
    ],
)
def test_only_an_ip_address_is_accepted_as_the_callers(gateway: Launcher, forwarded: str, wanted: str) -> None:
    assert gateway.http.get("/who", headers={"x-forwarded-for": forwarded}).json()[0] == wanted
