"""pipecat's own JavaScript clients, as they are published, against the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.launchers import Launcher
from tests.system.browser.browser import drive, gateway, url

KEY = "a-public-key"
MANAGER = "a-private-key"


@pytest.fixture(scope="module")
def keyed() -> Iterator[Launcher]:
    """It wants a key, and tokens for WebSockets: as it is when others can reach it."""
    with gateway(
        PIPECAT_PUBLIC_API_KEYS=KEY, PIPECAT_PRIVATE_API_KEYS=MANAGER, PIPECAT_WEBSOCKET_AUTH="token"
    ) as launcher:
        yield launcher


@pytest.mark.parametrize("transport", ["webrtc", "websocket"])
def test_the_javascript_client_on_another_origin_hears_its_own_tone(
    keyed: Launcher, microphone: str, transport: str
) -> None:
    seen = drive("client", gateway=url(keyed), key=KEY, manager=MANAGER, transport=transport, microphone=microphone)
    assert seen["origin"] != url(keyed)
    assert seen["heard"] == pytest.approx(440, abs=15)
    assert seen["ready"]["about"]["library"] == "pipecat-ai"
    assert seen["transcript"]["text"].startswith("heard ")
    assert [(session["transport"], session["state"]) for session in seen["during"]] == [(transport, "running")]
    assert seen["errors"] == []
    assert seen["complaints"] == []


def test_the_prebuilt_client_hears_its_own_tone(echo: Launcher, microphone: str) -> None:
    seen = drive("prebuilt", gateway=url(echo), microphone=microphone)
    assert seen["heard"] == pytest.approx(440, abs=15)
    assert [session["transport"] for session in seen["during"]] == ["webrtc"]
