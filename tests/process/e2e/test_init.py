"""The bot of ``pipecat-base init``, served by a real launcher and called."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import phones
from tests.support.browser_peer import RATE, Browser
from tests.support.launchers import PIPECAT, Launcher, run
from tests.support.offers import NO_ICE, play
from tests.support.phones import call
from tests.support.tones import pitch

pytestmark = pytest.mark.skipif(PIPECAT < (1, 14), reason="its requirements.txt asks for pipecat-ai 1.14")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = tmp_path_factory.mktemp("init")
    assert run("init", "my-bot", cwd=folder).returncode == 0
    with dev(folder / "my-bot") as launcher:
        yield launcher


def dev(folder: Path) -> Launcher:
    return Launcher(folder, command=("dev",), DRAIN_NOTICE="0", **dict[str, Any](NO_ICE))


@pytest.mark.parametrize("provider", phones.PROVIDERS, ids=lambda provider: provider.name)
def test_it_echoes_a_phone_call_without_a_key(made: Launcher, provider: phones.Provider) -> None:
    heard = call(made, provider, 440)
    assert len(heard) > 8000
    assert pitch(heard) == pytest.approx(440, abs=5)


def test_it_echoes_a_browser(made: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(f"http://127.0.0.1:{made.port}") as browser:
            assert (await browser.offer()).status_code == 200
            assert pitch(await browser.hear(0.5), RATE) == pytest.approx(440, abs=5)

    play(scenario)
