"""HTTP endpoints that the bot adds to pipecatcloud_system.app."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tests.support.callers import post
from tests.support.launchers import Launcher, in_one_process


@pytest.fixture(scope="module")
def api() -> Iterator[Launcher]:
    with Launcher("api") as launcher:
        yield launcher


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
def test_every_method_is_served(api: Launcher, method: str) -> None:
    response = api.http.request(method, "/any")
    assert response.status_code == 200
    assert method == "HEAD" or response.json() == {"method": method}


def test_the_state_of_lifespans_reaches_requests(api: Launcher) -> None:
    assert api.http.get("/status").json() == {"colour": "blue"}


def test_log_lines_of_an_endpoint_carry_the_session_that_the_gateway_names(api: Launcher) -> None:
    api.http.get("/status", headers={"x-daily-session-id": "from-the-gateway"})
    assert "| from-the-gateway - status was asked" in api.log()


def test_a_clash_with_a_reserved_route_is_logged_and_ours_wins(api: Launcher) -> None:
    assert api.http.get("/livez").json() == {"status": "ok"}
    assert "/livez is reserved for the launcher (GET): your my_livez() is not served there" in api.log()
    assert "/readyz is reserved for the launcher (GET): your " in api.log()
    assert api.log().count(" is reserved for the launcher") == 2


def test_endpoints_are_served_only_once_their_lifespans_have_begun() -> None:
    with Launcher("api", wait=False, LIFESPAN="1") as launcher:
        launcher.wait_for_log("first begins")
        refused = launcher.http.get("/status")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "starting")
        launcher.wait_until_ready()
        assert launcher.http.get("/status").json() == {"colour": "blue"}


def test_another_method_on_a_reserved_path_is_the_bots(api: Launcher) -> None:
    assert api.http.get("/bot").json() == {"page": True}


def test_an_endpoint_that_raises_is_500_with_its_traceback_in_the_log_alone(api: Launcher) -> None:
    response = api.http.get("/broken")
    assert response.status_code == 500
    assert "the endpoint is broken" not in response.text
    api.wait_for_log("RuntimeError: the endpoint is broken")


def test_websockets_of_the_bots_own_work(api: Launcher) -> None:
    with connect(api.websocket_url("/mine"), proxy=None) as websocket:
        assert websocket.recv(timeout=10) == "mine"


@in_one_process
def test_lifespans_run_in_order_around_the_life_of_the_server() -> None:
    with Launcher("api", DRAIN_NOTICE="0") as launcher:
        assert launcher.stop() == 0
        lines = [line for line in launcher.log().splitlines() if line.startswith(("first", "second"))]
        assert lines == ["first begins", "second begins", "second ends", "first ends"]


@in_one_process
@pytest.mark.parametrize(("bot", "path"), [("api", "/added-in-session"), ("late_api", "/late")])
def test_a_route_that_is_added_in_a_session_is_served(bot: str, path: str) -> None:
    with Launcher(bot) as launcher, ThreadPoolExecutor() as pool:
        assert launcher.http.get(path).status_code == 404
        headers = {"x-daily-session-id": "adds-a-route"}
        running = pool.submit(launcher.http.post, "/bot", json={"seconds": 1}, headers=headers)
        launcher.wait_for_log("Session started")
        assert launcher.http.get(path).json() == {"session": "adds-a-route"}
        assert running.result().status_code == 200


def test_a_bot_may_serve_what_the_launcher_does_not(api: Launcher) -> None:
    assert api.http.post("/whatsapp").json() == {"mine": True}
    with pytest.raises(InvalidStatus) as refused, connect(api.websocket_url("/nobodys"), proxy=None):
        pass
    assert refused.value.response.status_code == 404


def test_without_the_app_other_paths_are_404(obedient: Launcher) -> None:
    assert obedient.http.get("/docs").status_code == 404
    assert post(obedient).status_code == 200
