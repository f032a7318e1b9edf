"""Requests of the launcher that a worker serves."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.internal import NOT_JSON, InternalRoutes
from pipecat_base.api.requests import SESSION_ID_KEY
from pipecat_base.errors import NotSupported, UnknownSession


class Files:
    def __init__(self) -> None:
        self.deleted: list[str] = []

    async def delete(self, url: str) -> None:
        if url == "bad":
            raise ValueError(url)
        self.deleted.append(url)


class Pod:
    """Of a bot whose ``readyz()`` has returned ``verdict``."""

    def __init__(
        self, verdict: Mapping[str, Any] | None = None, reasons: Mapping[str, str | None] | None = None
    ) -> None:
        self.verdict = verdict
        self.reasons = reasons
        self.arguments = SimpleNamespace(file_storage=Files())

    async def ready(self) -> Any:
        return self.verdict

    async def capability_problems(self) -> Any:
        if self.reasons is None:
            raise ImportError("broken")
        return self.reasons

    async def ice_servers(self) -> None:
        return None

    async def all_ice_servers(self) -> None:
        raise NotSupported("WebRTC is not installed.")


def asked(pod: Pod, method: str, path: str, content: Any = None) -> httpx.Response:
    async def scene() -> httpx.Response:
        serve = InternalRoutes(cast(Any, pod), Capabilities(pod.capability_problems), lambda *found: None).app()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await serve({**scope, SESSION_ID_KEY: "s"}, receive, send)

        async with httpx.AsyncClient(transport=httpx.ASGITransport(cast(Any, app)), base_url="http://worker") as http:
            return await http.request(method, path, json=content)

    return asyncio.run(scene())


def test_a_worker_whose_event_loop_runs_answers() -> None:
    assert asked(Pod(), "GET", "/livez").json() == {}


@pytest.mark.parametrize("verdict", [{"ready": True}, {"ready": False, "reason": "ü"}, {"ready": True, "a": [1, None]}])
def test_a_verdict_is_passed_on_as_the_bot_gave_it(verdict: Any) -> None:
    assert asked(Pod(verdict), "GET", "/readyz").json() == verdict


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("nan"), float("inf"), {(1, 2): 3}, 1j])
def test_a_verdict_that_is_not_json_still_says_if_the_bot_is_ready(value: Any, ready: bool) -> None:
    answer = asked(Pod({"ready": ready, "value": value}), "GET", "/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": ready, "reason": NOT_JSON})


def test_a_verdict_that_contains_itself_is_not_json_either() -> None:
    verdict: dict[str, Any] = {"ready": True}
    verdict["self"] = verdict
    assert asked(Pod(verdict), "GET", "/readyz").json() == {"ready": True, "reason": NOT_JSON}


@pytest.mark.parametrize("reasons", [{"daily": None, "webrtc": "It is not installed."}, None])
def test_capabilities_are_listed_by_name_or_not_at_all(reasons: Any) -> None:
    assert asked(Pod(reasons=reasons), "GET", "/capabilities").json() == reasons


def test_an_upload_that_cannot_be_deleted_does_not_keep_the_others() -> None:
    pod = Pod()
    assert asked(pod, "DELETE", "/files", ["a", "bad", "b"]).status_code == 200
    assert pod.arguments.file_storage.deleted == ["a", "b"]


def test_a_refusal_is_answered_with_its_code_and_status() -> None:
    answer = asked(Pod(), "GET", "/ice-servers/answering")
    assert (answer.status_code, answer.json()) == (501, NotSupported("WebRTC is not installed.").body())
    assert asked(Pod(), "GET", "/ice-servers").json() is None


@pytest.mark.parametrize("path", ["/calls/connect", "/calls/hang-up"])
def test_a_call_that_was_not_answered_here_is_unknown(path: str) -> None:
    answer = asked(Pod(), "POST", path)
    assert (answer.status_code, answer.json()) == (404, UnknownSession("s").body())
