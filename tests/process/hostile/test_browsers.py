"""Pages of other sites, in a browser that can reach a pod or a gateway, are refused."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from tests.support.attackers import dial, status_of
from tests.support.launchers import Launcher, free_port

EVIL = "https://evil.example"
ROUTES = [("POST", "/bot"), ("POST", "/api/offer"), ("POST", "/files"), ("GET", "/large"), ("POST", "/swallow")]
STREAMS = ["/ws", "/ws-client"]


@pytest.fixture(scope="module")
def pod() -> Iterator[Launcher]:
    """Listens on a loopback address."""
    with Launcher("hostile") as running:
        yield running


@pytest.fixture(scope="module")
def open_pod() -> Iterator[Launcher]:
    """Listens on every address, as in a container, and allows one origin."""
    with Launcher("hostile", PIPECAT_HOST="0.0.0.0", PIPECAT_PUBLIC_URL="https://bot.example") as running:
        yield running


def is_let_in(launcher: Launcher, path: str, origin: str | None) -> bool:
    try:
        page = None if origin is None else Origin(origin)
        with connect(launcher.websocket_url(path), proxy=None, origin=page):
            return True
    except InvalidStatus as refused:
        assert refused.response.status_code == 403
        return False


@pytest.mark.parametrize("origin", [EVIL, "null", "http://localhost.evil.example", "http://127.0.0.1.evil.example"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("which", ["pod", "open_pod"])
def test_a_page_of_another_site_is_refused_at_every_route(
    request: pytest.FixtureRequest, which: str, method: str, path: str, origin: str
) -> None:
    launcher: Launcher = request.getfixturevalue(which)
    headers = {"origin": origin, "content-type": "text/plain"}
    answer = launcher.http.request(method, path, content=b"{}", headers=headers)
    assert (answer.status_code, answer.json()["error"]["field"]) == (403, "origin")


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("which", ["pod", "open_pod"])
def test_a_page_of_another_site_opens_no_websocket(request: pytest.FixtureRequest, which: str, path: str) -> None:
    launcher: Launcher = request.getfixturevalue(which)
    assert not is_let_in(launcher, path, EVIL)
    assert not is_let_in(launcher, path, "null")
    assert is_let_in(launcher, path, None)  # as phones and the platform come
    assert is_let_in(launcher, path, f"http://127.0.0.1:{launcher.port}")


NAMES = (
    *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]", "192.0.2.1", "[::1].evil.example"),
    *("localhost:80.evil.example", "127.0.0.1:x.evil.example", "evil.example@localhost", "loc\talhost", "localhost."),
)


@pytest.mark.parametrize("host", NAMES)
def test_a_foreign_name_that_resolves_to_this_machine_is_refused(pod: Launcher, host: str) -> None:
    for path in ("/large", "/bot"):
        answer = pod.http.request(
            "POST" if path == "/bot" else "GET", path, headers={"host": host, "origin": f"http://{host}"}
        )
        assert (answer.status_code, answer.json()["error"]["field"]) == (403, "host")
    with dial(pod) as sock:
        head = f"GET /ws-client HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\n"
        head += "connection: upgrade\r\nupgrade: websocket"
        sock.sendall(f"{head}\r\nsec-websocket-version: 13\r\nsec-websocket-key: {'A' * 22}==\r\n\r\n".encode())
        assert status_of(sock.recv(100)) == 403
    assert pod.http.get("/readyz", headers={"host": host}).status_code == 200


def test_a_pod_behind_a_name_serves_its_own_pages_and_allowed_origins(open_pod: Launcher) -> None:
    for headers in (
        {"host": "bot.example", "origin": "https://bot.example"},
        {"host": "10.0.0.7:8080", "x-forwarded-host": "bot.example", "origin": "https://bot.example"},
        {"host": "10.0.0.7:8080"},
    ):
        assert open_pod.http.get("/large", headers=headers).status_code == 200
    named = {"PIPECAT_HOST": "0.0.0.0", "PIPECAT_ALLOWED_ORIGINS": "https://app.example"}
    with Launcher("hostile", **named) as launcher:  # type: ignore[arg-type]
        assert launcher.http.get("/large", headers={"origin": "https://app.example"}).status_code == 200
        assert launcher.http.get("/large", headers={"origin": EVIL}).status_code == 403
        assert is_let_in(launcher, "/ws-client", "https://app.example")
        assert not is_let_in(launcher, "/ws-client", EVIL)


def test_requests_that_the_platform_forwards_for_a_session_are_accepted_from_any_client(open_pod: Launcher) -> None:
    headers = {"origin": EVIL, "x-daily-session-id": "s1"}
    assert open_pod.http.get("/large", headers=headers).status_code == 200
    # A browser asks for leave to send that header, without it.
    asked = {
        "origin": EVIL,
        "access-control-request-method": "GET",
        "access-control-request-headers": "x-daily-session-id",
    }
    answer = open_pod.http.options("/large", headers=asked)
    assert (answer.status_code, "access-control-allow-origin" in answer.headers) == (403, False)


def test_the_metrics_refuse_pages_of_other_sites_too() -> None:
    port = free_port()
    with Launcher("hostile", PIPECAT_METRICS_PORT=str(port)):
        for headers, status in (
            ({}, 200),
            ({"origin": EVIL}, 403),
            ({"host": "evil.example"}, 403),
            ({"host": f"localhost:{port}"}, 200),
        ):
            answer = httpx.get(f"http://127.0.0.1:{port}/metrics", headers=headers, trust_env=False)
            assert answer.status_code == status, headers


def test_a_page_on_another_port_of_this_machine_is_allowed(pod: Launcher) -> None:
    assert pod.http.get("/large", headers={"origin": "http://localhost:3000"}).status_code == 200
    assert is_let_in(pod, "/ws-client", "http://localhost:3000")


@pytest.mark.parametrize("insecure", [True, False])
def test_a_reflected_origin_allows_no_credentials(insecure: bool) -> None:
    keys = {"PIPECAT_INSECURE": "1"} if insecure else {"PIPECAT_PUBLIC_API_KEYS": "pk_0123456789abcdef"}
    with Launcher("hostile", PIPECAT_GATEWAY="1", **keys) as launcher:  # type: ignore[arg-type]
        asked = {"origin": EVIL, "access-control-request-method": "POST"}
        for answer in (
            launcher.http.options("/start", headers=asked),
            launcher.http.get("/status", headers={"origin": EVIL, "cookie": "a=b"}),
        ):
            assert "access-control-allow-credentials" not in answer.headers
    named = {"PIPECAT_GATEWAY": "1", "PIPECAT_INSECURE": "1", "PIPECAT_ALLOWED_ORIGINS": "https://app.example"}
    with Launcher("hostile", **named) as launcher:  # type: ignore[arg-type]
        answer = launcher.http.get("/status", headers={"origin": "https://app.example"})
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
        assert answer.headers["access-control-allow-credentials"] == "true"


def test_no_page_of_the_gateway_may_be_framed() -> None:
    with Launcher("hostile", PIPECAT_GATEWAY="1") as launcher:
        for path in ("/", "/page/app.js", "/client/", "/client/index.html"):
            answer = launcher.http.get(path)
            if answer.status_code == 200 or not path.startswith("/client"):
                assert "frame-ancestors 'none'" in answer.headers["content-security-policy"], path
