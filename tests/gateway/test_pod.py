"""The gateway's way to the pod, without a server in between."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from pipecat_base.arguments import ArgumentFactory
from pipecat_base.dispatch import Dispatch
from pipecat_base.errors import Refusal
from pipecat_base.gateway import answers
from pipecat_base.gateway.invitations import Invitations
from pipecat_base.gateway.pod import LocalPod
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.lifecycle import Lifecycle
from pipecat_base.sessions import Transport
from tests.parts import make_sessions


async def bot(arguments: Any) -> None: ...


def test_a_request_does_not_wait_for_ever_for_a_bot_that_does_not_run() -> None:
    async def scene() -> httpx.Response:
        lifecycle = Lifecycle()
        lifecycle.ready()
        sessions = make_sessions(bot, refusal=lifecycle.refusal)
        served = FastAPI()
        arguments = ArgumentFactory(wants_cloud=False)
        dispatch = Dispatch(sessions, arguments, None, hide=lambda session_id, url: None)
        pod = LocalPod(served, dispatch, sessions, lifecycle, None, arguments)
        app = FastAPI()
        app.include_router(SessionApi(pod, Invitations(), has_uploads=False, patience=0.05).router())
        app.add_exception_handler(Refusal, lambda request, refusal: answers.of(refusal, "x"))
        transport = httpx.ASGITransport(app=app)
        async with sessions.admit("s", Transport.WEBRTC), httpx.AsyncClient(transport=transport) as client:
            return await client.get("http://localhost/sessions/s/status")

    answer = asyncio.run(scene())
    assert (answer.status_code, answer.json()["reason"]) == (503, "not_running")
    assert answer.headers["retry-after"] == "1"
