"""The gateway's way to the pod, without a server in between, and to a pod that fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from pipecat_base.auth.keys import Keys
from pipecat_base.config.settings import ProviderSettings
from pipecat_base.errors import NotSupported, Refusal
from pipecat_base.gateway import error_format
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import StartRoutes
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind
from tests.support.daily_api import DailyApi
from tests.support.parts import make_sessions


@pytest.fixture
def api() -> Iterator[DailyApi]:
    """One of which nothing was asked before."""
    with DailyApi() as fresh:
        yield fresh


async def bot(arguments: Any) -> None: ...


def test_a_request_does_not_wait_for_ever_for_a_bot_that_does_not_run() -> None:
    async def scene() -> httpx.Response:
        lifecycle = Lifecycle()
        lifecycle.ready()
        sessions = make_sessions(bot, refusal=lifecycle.refusal)
        app = FastAPI()
        api = SessionApi(
            sessions, FastAPI(), PendingSessions(), has_uploads=False, report_of=lambda session_id: None, bot_wait=0.05
        )
        app.include_router(api.router())
        app.add_exception_handler(Refusal, lambda request, refusal: error_format.of(refusal, "x"))
        transport = httpx.ASGITransport(app=app)
        async with sessions.admit("s", TransportKind.WEBRTC), httpx.AsyncClient(transport=transport) as client:
            return await client.get("http://localhost/sessions/s/status")

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()["reason"]) == (503, "not_running")
    assert answer.headers["retry-after"] == "1"


class Broken:
    """A pod with a place for whoever asks, where no bot can be started."""

    registry = ()

    @contextlib.asynccontextmanager
    async def reserve(self, request: SessionRequest) -> AsyncIterator[Broken]:
        yield self

    async def start(self, transport: Any, body: Any, *, flow_config: str | None = None) -> None:
        raise NotSupported("No arguments for this transport.")


CALL = {"From": "+15551234567", "To": "+15559876543", "callId": "call-1", "callDomain": "domain-1"}


@pytest.mark.parametrize(
    ("path", "content"), [("/start", {"createDailyRoom": True}), ("/daily-dialin-webhook", CALL)], ids=["start", "call"]
)
def test_a_room_whose_bot_can_not_be_started_is_given_back(api: DailyApi, path: str, content: dict[str, Any]) -> None:
    async def scene() -> httpx.Response:
        pod: Any = Broken()
        rooms = Daily(api.key, api.url)
        webhooks = Webhooks(pod, FastAPI(), rooms, Keys(()), dialin_secret=None, max_body_bytes=1000)
        starts = StartRoutes(
            pod,
            ProviderSettings(),
            Addresses(None),
            rooms,
            PendingSessions(),
            max_body_bytes=1000,
            tokens=None,
            stream_path=lambda name: "",
        )
        app = FastAPI()
        app.include_router(webhooks.router())
        app.include_router(starts.router())
        app.add_exception_handler(Refusal, lambda request, refusal: error_format.of(refusal, "x"))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            return await client.post(f"http://localhost{path}", json=content)

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()["reason"]) == (501, "not_supported")
    assert len(api.deleted) == 1
    assert api.rooms == {}
