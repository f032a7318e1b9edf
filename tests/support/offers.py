"""What tests of WebRTC share: an offer that is good, and how it is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.support.browser_peer import Browser
from tests.support.launchers import Launcher

NO_ICE = {"PIPECAT_ICE_SERVERS": "[]"}
"""Host candidates only: nothing outside this machine is asked."""


def play(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario, every peer of it in this process."""
    asyncio.run(asyncio.wait_for(scenario(), 60))


def good_sdp() -> str:
    async def make() -> str:
        async with Browser("http://127.0.0.1:1") as browser:
            await browser.pc.setLocalDescription(await browser.pc.createOffer())
            return str(browser.pc.localDescription.sdp)

    return asyncio.run(make())


SDP = good_sdp()


def wait_for_offer(launcher: Launcher, session_id: str, body: Any, **headers: str) -> Any:
    named = {"x-daily-session-id": session_id, "x-daily-transport-type": "webrtc", **headers}
    return launcher.http.post("/bot", json=body, headers=named)
