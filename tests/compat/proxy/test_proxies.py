"""The gateway behind nginx and behind Caddy, as ``deploy/`` configures them and over TLS."""

from __future__ import annotations

import concurrent.futures
import re
import ssl
import time
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from twilio.request_validator import RequestValidator
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.compat.proxy.proxies import PROXIES, PROXY_TAKES, Certificate, Proxy, make_certificate
from tests.support.callers import close_code, encode
from tests.support.launchers import ROOT, Launcher, run, until
from tests.support.phones import to_pcm
from tests.support.tones import tone

KEY = {"authorization": "Bearer pk_test"}
TWILIO_TOKEN = "twilio-token"
MAX_UPLOAD = 2_000_000
MAX_BODY = 500_000
OPTIONS: dict[str, Any] = {
    "PIPECAT_GATEWAY": "1",
    "PIPECAT_PUBLIC_API_KEYS": "pk_test",
    "PIPECAT_WEBSOCKET_AUTH": "token",
    "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
    "PIPECAT_MAX_UPLOAD_BYTES": str(MAX_UPLOAD),
    "MAX_BODY_BYTES": str(MAX_BODY),
    "DRAIN_NOTICE": "0",
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def echo_bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = str(tmp_path_factory.mktemp("uploads"))
    with Launcher(ROOT / "examples" / "echo", PIPECAT_UPLOADS_FOLDER=folder, **OPTIONS) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def bot_with_routes() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_OPEN_ROUTES="/any/*", **OPTIONS) as launcher:
        yield launcher


@pytest.fixture(params=PROXIES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def proxy(kind: str, echo_bot: Launcher, certificate: Certificate, tmp_path: Path) -> Iterator[Proxy]:
    """In front of the echo bot."""
    with PROXIES[kind](echo_bot, certificate, tmp_path) as running:
        yield running


@pytest.fixture
def proxy_of_routes(kind: str, bot_with_routes: Launcher, certificate: Certificate, tmp_path: Path) -> Iterator[Proxy]:
    """In front of a bot that tells what it is asked."""
    with PROXIES[kind](bot_with_routes, certificate, tmp_path) as running:
        yield running


def stream_of_twilio(proxy: Proxy) -> str:
    """Where the answer to Twilio's webhook, signed as Twilio does, sends a call."""
    url = f"{proxy.url}/telephony/twilio"
    form = {"CallSid": "CA1", "From": "+15550001", "To": "+15550002"}
    signature = RequestValidator(TWILIO_TOKEN).compute_signature(url, form)
    answer = proxy.http.post("/telephony/twilio", data=form, headers={"x-twilio-signature": signature})
    assert answer.status_code == 200, answer.text
    (stream,) = re.findall(r'<Stream url="([^"]+)"', answer.text)
    return str(stream)


def open_websocket(proxy: Proxy, url: str) -> ClientConnection:
    context = proxy.certificate.context()
    # One thread reads and another writes: OpenSSL fails where a ticket of TLS 1.3 comes while the request is written.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return connect(url, ssl=context, proxy=None)


def test_a_phone_call_comes_through_and_its_address_is_the_proxys(proxy: Proxy, tmp_path: Path) -> None:
    stream = stream_of_twilio(proxy)
    assert stream.startswith(f"wss://localhost:{proxy.port}/ws/")
    said = tmp_path / "said.wav"
    with wave.open(str(said), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
        file.writeframes(to_pcm(tone(440, 3)))
    trust = {"SSL_CERT_FILE": str(proxy.certificate.certificate)}
    done = run("call", str(said), "--url", stream, "--out", str(tmp_path / "heard.wav"), cwd=tmp_path, **trust)
    assert done.returncode == 0, done.stdout + done.stderr
    ((sent, lost),) = re.findall(r"sent (\d+) frames, received \d+, lost (\d+) ", done.stdout)
    assert (int(sent) >= 150, lost) == (True, "0"), done.stdout


def test_a_websocket_outlives_the_times_for_requests_and_closes_with_its_code(proxy_of_routes: Proxy) -> None:
    body = {"transport": "websocket", "body": {"do": "echo"}}
    started = proxy_of_routes.http.post("/start", json=body, headers=KEY).json()
    assert urlsplit(started["wsUrl"]).netloc == f"localhost:{proxy_of_routes.port}"
    with open_websocket(proxy_of_routes, f"{started['wsUrl']}?token={started['token']}") as websocket:
        time.sleep(2.5)  # heads and bodies have one second here
        websocket.send("still there")
        assert websocket.recv(10) == "still there"
        proxy_of_routes.http.delete(f"/sessions/{started['sessionId']}", headers=KEY)
        assert close_code(websocket) == 4009


def test_a_websocket_without_a_token_is_refused_with_the_launchers_status(proxy: Proxy) -> None:
    for path in ("/ws", "/ws-client", "/ws/guess"):
        with pytest.raises(InvalidStatus) as refused:
            open_websocket(proxy, f"wss://localhost:{proxy.port}{path}")
        assert refused.value.response.status_code == 403
        assert "x-pipecat-launcher" in refused.value.response.headers


def test_a_session_starts_with_a_key_and_its_routes_are_reached(proxy_of_routes: Proxy) -> None:
    assert proxy_of_routes.http.post("/start", json={}).status_code == 401
    answer = proxy_of_routes.http.post("/v1/public/agent/start", json={"body": {"do": "wait"}}, headers=KEY)
    session_id = answer.json()["sessionId"]
    told = proxy_of_routes.http.put(f"/sessions/{session_id}/any/a%2Fb?q=1", content=b"x" * 100_000, headers=KEY).json()
    assert (told["method"], told["raw_path"], told["query"], len(told["body"])) == ("PUT", "/any/a%2Fb", "q=1", 100_000)
    proxy_of_routes.http.delete(f"/sessions/{session_id}", headers=KEY)


def test_an_upload_comes_through_and_one_that_is_too_large_is_refused_by_the_launcher(proxy: Proxy) -> None:
    small = proxy.http.post("/files", files={"file": ("photo.png", b"x" * 1_500_000)}, headers=KEY)
    assert (small.status_code, small.json()["name"]) == (200, "photo.png")
    large = proxy.http.post("/files", files={"file": ("photo.png", b"x" * (MAX_UPLOAD + 500_000))}, headers=KEY)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")


def test_what_is_larger_than_any_upload_is_refused_by_the_proxy(proxy_of_routes: Proxy) -> None:
    """To a route of the bot's, which would read it all."""
    size = PROXY_TAKES + 100_000
    if proxy_of_routes.name == "nginx":  # it refuses at the head, and its client would go on to send
        with proxy_of_routes.dial() as sock:
            sock.sendall(f"POST /any/thing HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n".encode())
            sock.settimeout(20)
            assert sock.recv(100).startswith(b"HTTP/1.1 413 ")
    else:  # it counts what comes, and Debian's version calls that a bad gateway
        assert proxy_of_routes.http.post("/any/thing", content=b"x" * size).status_code in (413, 502)


def test_a_body_that_is_too_large_for_a_start_is_refused(proxy: Proxy) -> None:
    answer = proxy.http.post("/start", content=b'"' + b"x" * MAX_BODY + b'"', headers=KEY)
    assert (answer.status_code, answer.json()["reason"]) == (413, "too_large")


def test_a_head_that_is_too_large_is_refused(proxy: Proxy) -> None:
    with proxy.dial() as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\nhost: localhost\r\n")
        sock.sendall(b"".join(b"x-%d: %s\r\n" % (n, b"x" * 8000) for n in range(100)) + b"\r\n")
        sock.settimeout(20)
        assert sock.recv(100).split(b" ")[1] in (b"400", b"431")


@pytest.mark.parametrize(
    "path",
    ["/readyz", "/readyz%0a", "/readyz%00", "/%72eadyz", "//readyz", "/./readyz", "/x/../readyz", "/x/%2e%2e/readyz"],
)
def test_no_spelling_of_a_path_passes_the_proxys_own_rules(proxy: Proxy, path: str) -> None:
    with proxy.dial("127.0.0.2") as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: localhost:{proxy.port}\r\nconnection: close\r\n\r\n".encode())
        sock.settimeout(20)
        assert sock.recv(100).split(b" ")[1] in (b"400", b"403", b"404")


def test_who_never_ends_a_head_is_cut_off(proxy: Proxy) -> None:
    with proxy.dial() as sock:
        sock.sendall(b"GET /status HTTP/1.1\r\nhost: loc")
        sock.settimeout(20)
        assert sock.recv(100).split(b" ")[1:2] in ([], [b"408"])


def test_what_the_platform_says_in_headers_no_caller_can_say(proxy_of_routes: Proxy) -> None:
    sent = {
        "x-daily-session-id": "another",
        "X-Daily-Room-Url": "u",
        "x-pcc-max-session-seconds": "1",
        "x-pcc-flow-config-file": "f",
        "x-pipecat-pod-token": "t",
        "x-forwarded-for": "203.0.113.9",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "ftp",
        "x-mine": "kept",
    }
    told = dict(proxy_of_routes.http.get("/any/public", headers=sent).json()["headers"])
    seen = {name: value for name, value in told.items() if name.startswith("x-")}
    assert {name for name in seen if not name.startswith("x-forwarded-")} == {"x-mine"}
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-host"] == told["host"] == f"localhost:{proxy_of_routes.port}"
    assert seen["x-forwarded-proto"] == "https"


def test_many_requests_at_once_are_answered(proxy: Proxy) -> None:
    with concurrent.futures.ThreadPoolExecutor(10) as threads:
        statuses = list(threads.map(lambda _: proxy.http.get("/status", headers=KEY).status_code, range(40)))
    assert statuses == [200] * 40


def test_the_proxys_log_has_neither_queries_nor_tokens(proxy: Proxy) -> None:
    with pytest.raises(InvalidStatus):
        open_websocket(proxy, f"wss://localhost:{proxy.port}/ws/t0ken-s3cr3t?body={encode('b0dy-s3cr3t')}")
    proxy.http.get("/status?token=qu3ry-s3cr3t", headers={"authorization": "Bearer pk_s3cr3t"})
    until(lambda: "/status" in proxy.log() and "/ws/" in proxy.log(), "both are in the log")
    assert "s3cr3t" not in proxy.log()
    assert encode("b0dy-s3cr3t") not in proxy.log()
