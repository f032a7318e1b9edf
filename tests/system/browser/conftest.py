from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipecat_base.cli.call import audio
from tests.support.launchers import Launcher
from tests.support.tones import tone
from tests.system.browser.browser import gateway

RATE = 48000


@pytest.fixture(scope="session")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the browser's microphone hears, again and again: 440 Hz, with pauses."""
    path = tmp_path_factory.mktemp("microphone") / "tone.wav"
    audio.write_wav(str(path), tone(440, 1.2, RATE) + [0] * (RATE * 6 // 10), RATE)
    return str(path)


@pytest.fixture(scope="module")
def echo() -> Iterator[Launcher]:
    """One gateway with the example bot, for every test that leaves it as it was."""
    with gateway() as launcher:
        yield launcher
