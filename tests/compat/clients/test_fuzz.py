"""Whatever comes, the gateway answers it, and nothing of it is left behind.

FUZZ_SECONDS is how long all of it takes (45); ``make clients FUZZ_SECONDS=600`` is for the night before a release.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import psutil
import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.compat.clients import clients
from tests.compat.clients.answers import objection
from tests.compat.clients.raw import Answer, Headers, frame, request, shake_hands
from tests.process.gateway.conftest import sessions
from tests.support.daily_api import DailyApi
from tests.support.launchers import ROOT, Launcher, until

SECONDS = float(os.environ.get("FUZZ_SECONDS", "45"))
HERE = Path(__file__).parent
SHORT_LIVED = {"MAX_SESSION_SECONDS": "2", "WEBRTC_OFFER_TIMEOUT": "2", "WEBRTC_CONNECT_TIMEOUT": "2"}
SECRETS = {
    "PIPECAT_PRIVATE_API_KEYS": clients.KEY,
    "PIPECAT_WEBSOCKET_AUTH": "token",
    "TWILIO_AUTH_TOKEN": "twilio-token",
    "PLIVO_AUTH_TOKEN": "plivo-token",
    "TELNYX_PUBLIC_KEY": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
    "PINLESS_HMAC_SECRET": "c2VjcmV0",
}
"""Every key, token and signature that can be asked for."""
FEW_FILES = 5
"""Descriptors that may be there more than before: connections that are being closed."""
MUCH_MEMORY = 50 * 1024 * 1024
UVICORNS = "Invalid UTF-8 sequence received from client."
"""uvicorn logs this itself, with a traceback, when a WebSocket's text is none; then it closes it."""


@dataclass(frozen=True)
class Gateway:
    """One that is fuzzed, and how it was before."""

    launcher: Launcher
    has_key: bool
    files: int
    memory: int
    tell: Callable[[str], None]

    @property
    def port(self) -> int:
        return self.launcher.port

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.launcher.process.pid)

    def check(self, method: str, target: bytes, answer: Answer) -> None:
        path = target.decode("latin-1").partition("?")[0]
        wrong = objection(method, path, answer.status, answer.content_type, answer.body)
        assert wrong is None, f"{wrong}: {answer}"

    def check_that_nothing_is_left(self) -> None:
        launcher = self.launcher
        assert launcher.process.poll() is None, "it has ended"
        until(lambda: sessions(launcher) == [], "no sessions", timeout=20)
        until(lambda: self.process.num_fds() <= self.files + FEW_FILES, "as few descriptors as before", timeout=20)
        grown = self.process.memory_info().rss - self.memory
        self.tell(f"{self.process.num_fds() - self.files:+} descriptors, {grown / 2**20:+.1f} MB")
        assert grown < MUCH_MEMORY
        assert launcher.is_ready()
        log = launcher.log()
        assert [line for line in log.splitlines() if "| ERROR " in line and UVICORNS not in line] == []
        assert log.count("Traceback") == log.count(UVICORNS), log


@pytest.fixture(scope="module", params=["with every secret", "open"])
def fuzzed(
    request: pytest.FixtureRequest, daily: DailyApi, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    has_key = request.param == "with every secret"
    variables: dict[str, Any] = {
        "DAILY_API_KEY": daily.key,
        "DAILY_API_URL": daily.url,
        "MAX_SESSIONS": "20",
        **SHORT_LIVED,
    }
    variables |= {"PIPECAT_UPLOADS_FOLDER": str(tmp_path_factory.mktemp("uploads"))}
    # Without keys it would take no host but this one.
    variables |= SECRETS if has_key else {"PIPECAT_INSECURE": "true"}
    capture: Any = request.config.pluginmanager.get_plugin("capturemanager")
    with Launcher(HERE / "bots" / "patient", PIPECAT_GATEWAY="1", **variables) as launcher:
        if has_key:
            launcher.http.headers["authorization"] = f"Bearer {clients.KEY}"
        warm_up(launcher)
        process = psutil.Process(launcher.process.pid)

        def tell(text: str) -> None:
            with capture.global_and_fixture_disabled():
                print(f"\n  a gateway {request.param}: {text}", end="", flush=True)

        yield Gateway(launcher, has_key, process.num_fds(), process.memory_info().rss, tell)


def warm_up(launcher: Launcher) -> None:
    """Have it import what it imports when it is needed first."""
    for content in ({"createDailyRoom": True}, {"transport": "webrtc"}):
        session_id = launcher.http.post("/start", json=content).json()["sessionId"]
        launcher.http.post(f"/sessions/{session_id}/api/offer", json={})
        launcher.http.post(f"/sessions/{session_id}/files", files={"file": b"x"})
    until(lambda: sessions(launcher) == [], "no sessions")


def for_seconds(seconds: float, test: Callable[[], None]) -> None:
    """Run a property's test again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        test()


some = settings(
    max_examples=50,
    deadline=None,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

# --- the routes that the OpenAPI document describes


def test_schemathesis_finds_nothing(fuzzed: Gateway, tmp_path: Path) -> None:
    arguments = ["run", f"{clients.host(fuzzed.launcher)}/v1/openapi.json", "--no-color", "--continue-on-failure"]
    arguments += ["--max-time", str(max(1, round(SECONDS * 0.25)))]
    arguments += ["--suppress-health-check", "all", "--generation-database", "none", "--warnings", "off"]
    if fuzzed.has_key:
        arguments += ["--checks", "gateway_answers,ignored_auth", "--header", f"Authorization: Bearer {clients.KEY}"]
    else:
        arguments += ["--checks", "gateway_answers"]
    hooks = {"SCHEMATHESIS_HOOKS": "tests.compat.clients.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    done = clients.run("schemathesis", *arguments, home=tmp_path, timeout=SECONDS + 120, **hooks)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    found = re.search(r"(\d+) generated, .*", done.stdout)
    assert found is not None
    fuzzed.tell(f"schemathesis: {found.group()}")
    fuzzed.check_that_nothing_is_left()


# --- webhooks and uploads, whose bodies the document leaves open

TEXT = st.text(max_size=20) | st.text("\0\r\n\x85\x9f\ud800\udfff\uffff<&\"'%+=;/\\.é", max_size=8)
"""Any text, and what escaping gets wrong."""
HEADER = st.binary(max_size=30).map(lambda raw: bytes(byte for byte in raw if byte > 31 and byte != 127))
WEBHOOKS = (
    "/",
    *(f"/telephony/{provider}" for provider in ("twilio", "telnyx", "plivo", "exotel")),
    "/daily-dialin-webhook",
    "/v1/public/webhooks/org/agent/dialin",
    "/v1/public/webhooks/org/agent/whatsapp",
    "/files",
)
TYPES = (
    "application/x-www-form-urlencoded",
    "application/json",
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "text/plain; charset=utf-7",
)
KNOWN = ("CallSid", "CallUUID", "CallControlId", "ConnectionId", "From", "To", "callId", "callDomain", "test", "body")
SIGNATURES = (
    "x-twilio-signature",
    "x-plivo-signature-v3",
    "x-plivo-signature-v3-nonce",
    "telnyx-signature-ed25519",
    "telnyx-timestamp",
    "x-pinless-signature",
    "x-pinless-timestamp",
    "x-hub-signature-256",
)
PLIVO = ((b"x-plivo-signature-v3", b"x"), (b"x-plivo-signature-v3-nonce", b"x"))
OTHERS = ("host", "x-forwarded-host", "x-forwarded-proto", "x-daily-session-id", "authorization", "origin", "cookie")

UPLOAD = b'--b\r\ncontent-disposition: form-data; name="file"; filename="%s"\r\ncontent-type: %s\r\n\r\n%s\r\n--b--\r\n'

queries = st.dictionaries(st.sampled_from([*KNOWN, "bodySHA256", "hub.challenge"]) | TEXT, TEXT, max_size=4).map(
    lambda fields: urlencode(fields, errors="surrogatepass").encode()
) | st.binary(max_size=20).map(lambda raw: bytes(byte for byte in raw if byte > 32 and byte not in b"#\x7f"))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
calls = st.fixed_dictionaries(
    dict.fromkeys(("From", "To", "callId", "callDomain"), TEXT), optional={"sipHeaders": json_values}
)
forms = st.dictionaries(st.sampled_from(KNOWN) | TEXT, TEXT, max_size=6)
bodies = st.one_of(
    st.binary(max_size=200),
    forms.map(lambda fields: urlencode(fields, errors="surrogatepass").encode()),
    (json_values | calls | st.dictionaries(st.sampled_from(KNOWN) | TEXT, json_values, max_size=6)).map(
        lambda value: json.dumps(value).encode()
    ),
    st.tuples(HEADER, HEADER, st.binary(max_size=50)).map(lambda parts: UPLOAD % parts),
)


def headers_of(*names: str) -> st.SearchStrategy[Headers]:
    now = st.builds(lambda: str(int(time.time())).encode())
    odd = st.sampled_from([b"nan", b"1e400", b"-1", b"[", b"a:b:c", b"x@[::1", b"https", b"Bearer x"])
    each = {name.encode(): now | HEADER | odd for name in names}
    return st.fixed_dictionaries({}, optional=each).map(lambda headers: [*{b"host": b"localhost", **headers}.items()])


def test_webhooks_and_uploads_answer_anything(fuzzed: Gateway) -> None:
    count = 0

    @some
    @given(
        method=st.sampled_from(("POST", "POST", "GET", "PUT", "OPTIONS")),
        path=st.sampled_from(WEBHOOKS),
        query=queries,
        kind=st.sampled_from(TYPES),
        headers=headers_of(*SIGNATURES, *OTHERS),
        body=bodies,
    )
    @example("POST", "/telephony/twilio", b"", TYPES[0], [(b"host", b"["), (b"x-twilio-signature", b"x")], b"")
    @example("POST", "/telephony/plivo", b"", TYPES[0], [(b"host", b"["), *PLIVO], b"")
    def test(method: str, path: str, query: bytes, kind: str, headers: Headers, body: bytes) -> None:
        nonlocal count
        if method == "GET" and path == "/":
            return  # the page
        count += 1
        target = path.encode() + (b"?" + query if query else b"")
        answer = request(fuzzed.port, method, target, [*headers, (b"content-type", kind.encode())], body)
        fuzzed.check(method, target, answer)

    for_seconds(SECONDS * 0.13, test)
    fuzzed.tell(f"webhooks and uploads: {count} requests")
    fuzzed.check_that_nothing_is_left()


# --- WebSockets

STREAMS = (
    *(f"/ws/{provider}" for provider in ("twilio", "telnyx", "plivo", "exotel", "generic")),
    "/ws",
    "/ws-client",
    "/sessions/none/ws-client",
    "/no/such",
)
frames = st.lists(
    st.one_of(
        st.builds(frame, st.sampled_from((0, 1, 2, 8, 9, 10, 3)), st.binary(max_size=200), last=st.booleans()),
        st.builds(lambda text: frame(1, json.dumps(text).encode()), json_values),
        st.binary(max_size=20),
    ),
    max_size=4,
)
WS_FIELDS = ("serviceHost", "token", "body")
ws_headers = headers_of(*OTHERS, "x-twilio-signature", "sec-websocket-protocol", "x-pcc-max-session-seconds")


def test_websockets_answer_anything(fuzzed: Gateway) -> None:
    count = accepted = 0

    @some
    @given(
        path=st.sampled_from(STREAMS),
        token=st.none() | TEXT,
        query=st.dictionaries(st.sampled_from(WS_FIELDS) | TEXT, TEXT, max_size=3),
        is_promised=st.booleans(),
        body=json_values,
        headers=ws_headers,
        frames=frames,
    )
    @example("/ws/twilio", None, {}, False, None, [(b"host", b"["), (b"x-twilio-signature", b"x")], [])
    def test(
        path: str,
        token: str | None,
        query: dict[str, str],
        is_promised: bool,
        body: Any,
        headers: Headers,
        frames: list[bytes],
    ) -> None:
        nonlocal count, accepted
        count += 1
        if token is not None:
            # Starlette's routes take no line break, so nobody has a say in what is answered then.
            path += "/" + quote(token.replace("\n", ""), safe="", errors="surrogatepass")
        if is_promised:
            content = {"transport": "websocket", "body": body}
            raw = [(b"host", b"localhost"), (b"authorization", f"Bearer {clients.KEY}".encode())]
            promise = request(fuzzed.port, "POST", b"/start", raw, json.dumps(content).encode())
            fuzzed.check("POST", b"/start", promise)
            if promise.status == 200:
                said = json.loads(promise.body)
                path = path if path.startswith("/ws/") and "token" in said else urlsplit(said["wsUrl"]).path
                query = {**query, "token": said.get("token", "")}
        target = path.encode() + b"?" + urlencode(query, errors="surrogatepass").encode()
        answer = shake_hands(fuzzed.port, target, headers, frames)
        if answer.status == 101:
            accepted += 1
        else:
            fuzzed.check("GET", target, answer)

    for_seconds(SECONDS * 0.12, test)
    fuzzed.tell(f"WebSockets: {count} handshakes, {accepted} accepted")
    assert accepted
    fuzzed.check_that_nothing_is_left()
