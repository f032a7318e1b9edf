"""Public keys, the pod's token, and who may be reached without them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.process import BOTS, Launcher, run

KEYED = [
    ("POST", "/start"),
    ("POST", "/v1/public/my-agent/start"),
    ("GET", "/sessions"),
    ("DELETE", "/sessions/x"),
    ("GET", "/sessions/x/status"),
    ("GET", "/v1/public/my-agent/sessions/x/status"),
    ("DELETE", "/v1/agents/my-agent/sessions/x"),
    ("GET", "/v1/agents/my-agent"),
    ("GET", "/status"),
    ("POST", "/daily-dialin-webhook"),
]


@pytest.fixture(scope="module")
def keyed() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_API_KEYS="pk_one, pk_two") as launcher:
        yield launcher


@pytest.mark.parametrize(("method", "path"), KEYED)
@pytest.mark.parametrize("authorization", [None, "Bearer pk_three", "Bearer", "Basic pk_one", "pk_one", "Bearer ü"])
def test_without_a_good_key_the_answer_is_401(
    keyed: Launcher, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    answer = keyed.http.request(method, path, headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (401, "PCC-1002")
    assert "pk_" not in keyed.log()


@pytest.mark.parametrize("key", ["pk_one", "pk_two"])
def test_any_of_the_keys_is_good(keyed: Launcher, key: str) -> None:
    answer = keyed.http.get("/sessions", headers={"authorization": f"bearer {key}"})
    assert (answer.status_code, answer.json()) == (200, {"sessions": []})


def test_the_page_and_the_probes_need_no_key(keyed: Launcher) -> None:
    for path in ("/livez", "/readyz", "/"):
        assert keyed.http.get(path).status_code == 200, path


@pytest.mark.parametrize("path", ["/bot", "/api/offer"])
def test_behind_keys_the_pods_own_routes_start_nothing(keyed: Launcher, path: str) -> None:
    answer = keyed.http.post(path, json={"do": "return"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "pod_token_missing")
    guessed = keyed.http.post(path, json={}, headers={"x-pipecat-pod-token": "guess"})
    assert guessed.status_code == 401


def test_behind_keys_files_come_with_a_key() -> None:
    key = {"authorization": "Bearer pk_one"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_API_KEYS="pk_one", STORAGE="1") as launcher:
        assert launcher.http.post("/files", files={"file": ("a", b"a")}).status_code == 401
        answer = launcher.http.post("/files", files={"file": ("a", b"a")}, headers=key)
        assert (answer.status_code, answer.json()["name"]) == (200, "a")


def test_behind_keys_offers_come_through_the_session_api(keyed: Launcher) -> None:
    key = {"authorization": "Bearer pk_one"}
    session_id = keyed.http.post("/start", headers=key).json()["sessionId"]
    answer = keyed.http.post(f"/sessions/{session_id}/api/offer", headers=key, json={"sdp": "x", "type": "offer"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "sdp")  # the pod's word
    keyed.http.delete(f"/sessions/{session_id}", headers=key)


def test_a_pod_with_a_token_serves_whoever_has_it() -> None:
    with Launcher("gateway", PIPECAT_POD_TOKEN="t0ken") as launcher:
        assert launcher.http.post("/bot", json={"do": "return"}).status_code == 401
        good = {"x-pipecat-pod-token": "t0ken"}
        assert launcher.http.post("/bot", json={"do": "return"}, headers=good).status_code == 200
        assert launcher.http.get("/any/").status_code == 200  # the bot's own
        assert launcher.http.get("/readyz").status_code == 200
        with pytest.raises(InvalidStatus) as refused:
            connect(launcher.websocket_url())
        assert refused.value.response.status_code == 401
        with connect(launcher.websocket_url(), additional_headers=good) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"
        assert "t0ken" not in launcher.log()


def test_a_gateway_before_a_pod_with_a_token_knows_it() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_POD_TOKEN="t0ken") as launcher:
        assert launcher.http.post("/bot").status_code == 401
        url = launcher.http.post("/start", json={"transport": "websocket"}).json()["wsUrl"]
        with connect(url) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_gateway_that_others_can_reach_needs_keys(host: str) -> None:
    ended = run("serve", "--host", host, cwd=BOTS / "gateway", PIPECAT_GATEWAY="1")
    assert ended.returncode == 24
    assert ended.stderr.startswith("PIPECAT_PUBLIC_API_KEYS: not set, and a gateway on ")
    assert "--insecure" in ended.stderr


def test_a_gateway_that_others_can_reach_needs_no_keys_when_told_so() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_HOST="0.0.0.0", PIPECAT_INSECURE="1") as launcher:
        assert launcher.http.get("/sessions").status_code == 200


@pytest.fixture(scope="module")
def local() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        yield launcher


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.0.2.1", "[", ""])
@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
def test_without_keys_a_gateway_serves_nobody_who_calls_it_by_another_name(
    local: Launcher, header: str, host: str
) -> None:
    for path in ("/start", "/bot", "/api/offer", "/telephony/twilio", "/any/"):
        answer = local.http.post(path, headers={header: host})
        assert (answer.status_code, answer.json()["field"]) == (403, header), path
    with pytest.raises(InvalidStatus) as refused:
        connect(local.websocket_url(), additional_headers={"x-forwarded-host": host})
    assert refused.value.response.status_code == 403
    assert local.http.get("/readyz", headers={header: host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.0.0.1", "[::1]:8080", "127.1.2.3"])
def test_without_keys_a_gateway_serves_this_machine(local: Launcher, host: str) -> None:
    assert local.http.get("/sessions", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://localhost.evil.example", "["])
def test_without_keys_pages_of_others_start_nothing(local: Launcher, origin: str) -> None:
    for path in ("/start", "/bot", "/api/offer"):
        answer = local.http.post(path, content="{}", headers={"origin": origin, "content-type": "text/plain"})
        assert (answer.status_code, answer.json()["field"]) == (403, "origin")
    for path in ("/ws", "/ws-client", "/ws/generic"):
        with pytest.raises(InvalidStatus) as refused:
            connect(local.websocket_url(path), additional_headers={"origin": origin})
        assert refused.value.response.status_code == 403
    assert local.http.get("/sessions").json() == {"sessions": []}


def test_without_keys_pages_of_this_machine_do(local: Launcher) -> None:
    for origin in ("http://localhost:5173", "http://127.0.0.1:3000"):
        answer = local.http.post("/v1/public/agent/start", headers={"origin": origin}, json={"body": {"do": "return"}})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] in ("*", origin)
        with connect(local.websocket_url("/ws-client"), additional_headers={"origin": origin}) as client:
            client.send("hello")
            assert client.recv(timeout=10) == "hello"


def test_a_public_url_needs_keys() -> None:
    ended = run(cwd=BOTS / "gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_URL="https://bot.example")
    assert ended.returncode == 24
    assert ended.stderr.startswith("PIPECAT_PUBLIC_API_KEYS: not set, and PIPECAT_PUBLIC_URL says")


def test_pages_of_any_origin_may_ask_and_read_the_answers(gateway: Launcher) -> None:
    preflight = gateway.http.options(
        "/start",
        headers={
            "origin": "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,content-type",
        },
    )
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "authorization" in preflight.headers["access-control-allow-headers"]
    answer = gateway.http.post("/start", headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] in ("*", "https://app.example")
    assert "sessionId" in answer.headers["access-control-expose-headers"]


def test_with_allowed_origins_pages_of_others_can_not() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_ALLOWED_ORIGINS="https://app.example") as launcher:
        wanted = {"access-control-request-method": "POST"}
        good = launcher.http.options("/start", headers={"origin": "https://app.example", **wanted})
        assert good.headers["access-control-allow-origin"] == "https://app.example"
        bad = launcher.http.options("/start", headers={"origin": "https://evil.example", **wanted})
        assert bad.status_code == 400
        assert "access-control-allow-origin" not in bad.headers
        refused = launcher.http.post("/start", headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["field"]) == (403, "origin")
        own = f"http://127.0.0.1:{launcher.port}"
        assert launcher.http.post("/v1/public/agent/start", headers={"origin": own}).status_code == 200
        assert (
            launcher.http.post("/v1/public/agent/start", headers={"origin": "https://app.example"}).status_code == 200
        )


def test_cors_of_the_bots_own_routes_is_the_bots_own(gateway: Launcher) -> None:
    answer = gateway.http.get("/any/", headers={"origin": "https://app.example"})
    assert "access-control-allow-origin" not in answer.headers
    seen = gateway.http.options(
        "/any/", headers={"origin": "https://app.example", "access-control-request-method": "PUT"}
    )
    assert seen.json()["method"] == "OPTIONS"
