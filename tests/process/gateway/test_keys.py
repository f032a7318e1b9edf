"""Keys, the pod's token, and routes that need neither."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.launchers import BOTS, Launcher, run, until

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
    keys = {"PIPECAT_PUBLIC_API_KEYS": "pk_one, pk_two", "PIPECAT_PRIVATE_API_KEYS": "sk_one"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_OPEN_ROUTES="/any/public/*", **keys) as launcher:  # type: ignore[arg-type]
        yield launcher


@pytest.mark.parametrize(("method", "path"), KEYED)
@pytest.mark.parametrize("authorization", [None, "Bearer pk_three", "Bearer", "Basic pk_one", "pk_one", "Bearer ü"])
def test_without_a_valid_key_the_answer_is_401(
    keyed: Launcher, method: str, path: str, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    answer = keyed.http.request(method, path, headers=headers)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["code"]) == (401, "PCC-1002")
    assert "pk_" not in keyed.log()


@pytest.mark.parametrize("key", ["pk_one", "pk_two", "sk_one"])
def test_each_of_the_keys_is_valid(keyed: Launcher, key: str) -> None:
    assert keyed.http.get("/status", headers={"authorization": f"bearer {key}"}).status_code == 200


MANAGED = [
    ("GET", "/sessions"),
    ("GET", "/v1/agents/my-agent/sessions"),
    ("GET", "/v1/organizations/mine/services/my-agent/sessions"),
    ("DELETE", "/v1/agents/my-agent/sessions/x"),
    ("DELETE", "/v1/organizations/mine/services/my-agent/sessions/x"),
]


@pytest.mark.parametrize(("method", "path"), MANAGED)
def test_all_sessions_are_for_private_keys(keyed: Launcher, method: str, path: str) -> None:
    public = keyed.http.request(method, path, headers={"authorization": "Bearer pk_one"})
    assert (public.status_code, public.json()["reason"]) == (403, "key_not_private")
    private = keyed.http.request(method, path, headers={"authorization": "Bearer sk_one"})
    assert private.status_code == (200 if method == "GET" else 404)


def test_a_public_key_accesses_and_stops_the_session_that_it_has_started(keyed: Launcher) -> None:
    key = {"authorization": "Bearer pk_one"}
    session_id = keyed.http.post("/v1/public/agent/start", headers=key).json()["sessionId"]
    assert keyed.http.get(f"/sessions/{session_id}", headers=key).json()["sessionId"] == session_id
    assert keyed.http.delete(f"/sessions/{session_id}", headers=key).json()["status"] == "stopping"


def test_without_private_keys_no_one_manages_all_sessions() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_API_KEYS="pk_one") as launcher:
        answer = launcher.http.get("/sessions", headers={"authorization": "Bearer pk_one"})
        assert (answer.status_code, answer.json()["reason"]) == (403, "key_not_private")


@pytest.mark.parametrize("path", ["/any/", "/any/public", "/docs", "/openapi.json", "/nothing"])
def test_behind_keys_the_bots_own_routes_need_one(keyed: Launcher, path: str) -> None:
    answer = keyed.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "key_missing")
    with_key = keyed.http.get(path, headers={"authorization": "Bearer pk_one"})
    assert with_key.status_code == (404 if path == "/nothing" else 200)


def test_behind_keys_a_websocket_of_the_bots_needs_one(keyed: Launcher) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(keyed.websocket_url("/own"))
    assert refused.value.response.status_code == 401


def test_open_routes_need_no_key(keyed: Launcher) -> None:
    assert keyed.http.get("/any/public/image.png").json()["path"] == "public/image.png"


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/livez"), ("GET", "/ws"), ("GET", "/ws/stats"), ("GET", "/whatsapp")]
)
def test_another_method_on_a_launcher_path_needs_a_key(keyed: Launcher, method: str, path: str) -> None:
    assert keyed.http.request(method, path).status_code == 401


def test_an_options_request_needs_a_key_too(keyed: Launcher) -> None:
    asked = {"origin": "https://a.example", "access-control-request-method": "PUT"}
    assert keyed.http.options("/any/", headers=asked).status_code == 401


def test_the_page_and_the_probes_need_no_key(keyed: Launcher) -> None:
    for path in ("/livez", "/readyz", "/"):
        assert keyed.http.get(path).status_code == 200, path


@pytest.mark.parametrize("path", ["/bot", "/api/offer"])
def test_behind_keys_the_pods_own_routes_start_nothing(keyed: Launcher, path: str) -> None:
    answer = keyed.http.post(path, json={"do": "return"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "pod_token_missing")
    guessed = keyed.http.post(path, json={}, headers={"x-pipecat-pod-token": "guess"})
    assert guessed.status_code == 401


def test_behind_keys_files_need_a_key() -> None:
    key = {"authorization": "Bearer pk_one"}
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_PUBLIC_API_KEYS="pk_one", STORAGE="1") as launcher:
        assert launcher.http.post("/files", files={"file": ("a", b"a")}).status_code == 401
        answer = launcher.http.post("/files", files={"file": ("a", b"a")}, headers=key)
        assert (answer.status_code, answer.json()["name"]) == (200, "a")


@pytest.mark.needs_newest_packages
def test_behind_keys_offers_arrive_through_the_session_api(keyed: Launcher) -> None:
    key = {"authorization": "Bearer pk_one"}
    session_id = keyed.http.post("/start", headers=key).json()["sessionId"]
    answer = keyed.http.post(f"/sessions/{session_id}/api/offer", headers=key, json={"sdp": "x", "type": "offer"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (400, "sdp")  # the pod's word
    keyed.http.delete(f"/sessions/{session_id}", headers=key)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_POD_TOKEN="t0ken", STORAGE="1") as launcher:
        yield launcher


def test_a_pod_with_a_token_serves_requests_that_have_it() -> None:
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


@pytest.mark.parametrize("path", ["/bot", "/api/offer", "/files"])
def test_no_route_of_a_pod_starts_or_stores_anything_without_its_token(guarded: Launcher, path: str) -> None:
    upload = {"file": ("a", b"a")}
    for headers in ({}, {"x-pipecat-pod-token": "guess"}):
        answer = guarded.http.post(path, files=upload, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "pod_token_missing")
    assert guarded.http.post(path, files=upload, headers={"x-pipecat-pod-token": "t0ken"}).status_code != 401


@pytest.mark.parametrize("path", ["/ws", "/ws-client"])
def test_no_websocket_of_a_pod_is_opened_without_its_token(guarded: Launcher, path: str) -> None:
    with pytest.raises(InvalidStatus) as refused:
        connect(guarded.websocket_url(path))
    assert refused.value.response.status_code == 401


def test_a_gateway_sends_the_pods_token() -> None:
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
    assert ended.stderr.startswith(
        "pipecat-base: settings_invalid: PIPECAT_PUBLIC_API_KEYS: not set, and a gateway on "
    )
    assert "--insecure" in ended.stderr


def test_an_insecure_gateway_needs_no_keys() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_HOST="0.0.0.0", PIPECAT_INSECURE="1") as launcher:
        assert launcher.http.get("/sessions").status_code == 200


@pytest.mark.parametrize("path", ["/bot", "/%62ot", "/whatsapp", "/ws", "/ws-client", "/livez", "/readyz"])
def test_the_session_api_does_not_reach_the_pods_own_routes(gateway: Launcher, path: str) -> None:
    session_id = gateway.http.post("/v1/public/agent/start", json={"body": {"do": "wait"}}).json()["sessionId"]
    room = {"x-daily-room-url": "https://evil.daily.co/room", "x-daily-room-token": "t"}

    def running() -> list[str]:
        return [session["sessionId"] for session in gateway.http.get("/sessions").json()["sessions"]]

    until(lambda: session_id in running(), "the session runs")
    before = running()
    answer = gateway.http.post(f"/sessions/{session_id}{path}", json={}, headers=room)
    assert (answer.status_code, answer.json()["reason"]) == (404, "not_served")
    assert running() == before
    gateway.http.delete(f"/sessions/{session_id}")


def test_callers_cannot_send_internal_headers_to_a_pod(gateway: Launcher) -> None:
    session_id = gateway.http.post("/v1/public/agent/start", json={"body": {"do": "wait"}}).json()["sessionId"]
    sent = {"x-daily-room-url": "u", "X-Pcc-Max-Session-Seconds": "1", "x-pipecat-pod-token": "t", "x-mine": "kept"}
    sent["x-daily-session-id"] = "another"
    seen = gateway.http.get(f"/sessions/{session_id}/any/", headers=sent).json()["headers"]
    names = [name for name, _ in seen if name.startswith("x-")]
    assert sorted(names) == ["x-daily-session-id", "x-mine"]
    assert ["x-daily-session-id", session_id] in seen
    gateway.http.delete(f"/sessions/{session_id}")


@pytest.fixture(scope="module")
def local() -> Iterator[Launcher]:
    with Launcher("gateway", PIPECAT_GATEWAY="1") as launcher:
        yield launcher


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "192.0.2.1", "[", ""])
@pytest.mark.parametrize("header", ["host", "x-forwarded-host"])
def test_without_keys_a_gateway_refuses_other_host_names(local: Launcher, header: str, host: str) -> None:
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


@pytest.mark.parametrize("path", ["/sessions", "/status", "/any/", "/v1/openapi.json", "/"])
def test_without_keys_pages_of_others_read_nothing(local: Launcher, path: str) -> None:
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}):
        answer = local.http.get(path, headers=headers)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


def test_without_keys_a_link_on_another_page_leads_here(local: Launcher) -> None:
    followed = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    for headers in (followed, {**followed, "sec-fetch-dest": "document"}):
        assert local.http.get("/", headers=headers).status_code == 200
    assert local.http.get("/", headers={**followed, "sec-fetch-dest": "iframe"}).status_code == 403


def test_without_keys_pages_of_others_end_nothing(local: Launcher) -> None:
    session_id = local.http.post("/v1/public/agent/start").json()["sessionId"]
    refused = local.http.delete(f"/sessions/{session_id}", headers={"origin": "https://evil.example"})
    assert (refused.status_code, refused.json()["field"]) == (403, "origin")
    assert local.http.get(f"/sessions/{session_id}").json()["state"] == "running"
    own = local.http.delete(f"/sessions/{session_id}", headers={"origin": "http://localhost:5173"})
    assert own.status_code == 200
    until(lambda: not local.http.get("/sessions").json()["sessions"], "the session's end")


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
    assert ended.stderr.startswith(
        "pipecat-base: settings_invalid: PIPECAT_PUBLIC_API_KEYS: not set, and PIPECAT_PUBLIC_URL says"
    )


def test_pages_of_any_origin_may_send_requests_and_read_the_responses(gateway: Launcher) -> None:
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


def test_with_allowed_origins_pages_of_others_cannot() -> None:
    with Launcher("gateway", PIPECAT_GATEWAY="1", PIPECAT_ALLOWED_ORIGINS="https://app.example") as launcher:
        wanted = {"access-control-request-method": "POST"}
        good = launcher.http.options("/start", headers={"origin": "https://app.example", **wanted})
        assert good.headers["access-control-allow-origin"] == "https://app.example"
        bad = launcher.http.options("/start", headers={"origin": "https://evil.example", **wanted})
        assert bad.status_code == 403
        assert "access-control-allow-origin" not in bad.headers
        refused = launcher.http.post("/start", headers={"origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["field"]) == (403, "origin")
        own = f"http://127.0.0.1:{launcher.port}"
        assert launcher.http.post("/v1/public/agent/start", headers={"origin": own}).status_code == 200
        assert (
            launcher.http.post("/v1/public/agent/start", headers={"origin": "https://app.example"}).status_code == 200
        )


def test_with_allowed_origins_every_websocket_needs_one_of_them() -> None:
    with Launcher("api", PIPECAT_ALLOWED_ORIGINS="https://app.example") as launcher:
        for path in ("/mine", "/ws", "/ws-client"):
            for headers in ({"origin": "https://evil.example"}, {}):
                with pytest.raises(InvalidStatus) as refused:
                    connect(launcher.websocket_url(path), additional_headers=headers)
                assert refused.value.response.status_code == 403
        with connect(launcher.websocket_url("/mine"), additional_headers={"origin": "https://app.example"}):
            pass


def test_cors_of_the_bots_own_routes_is_the_bots_own(gateway: Launcher) -> None:
    answer = gateway.http.get("/any/", headers={"origin": "https://app.example"})
    assert "access-control-allow-origin" not in answer.headers
    seen = gateway.http.options(
        "/any/", headers={"origin": "https://app.example", "access-control-request-method": "PUT"}
    )
    assert seen.json()["method"] == "OPTIONS"
