"""``pipecat eval run``: the harness of pipecat's evals calls a bot over its WebSocket, with no model to fetch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.clients import clients
from tests.process.gateway.conftest import sessions
from tests.support.launchers import Launcher, until

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def talker() -> Iterator[Launcher]:
    with Launcher(HERE / "bots" / "talker", PIPECAT_GATEWAY="1") as launcher:
        yield launcher


@pytest.mark.parametrize("path", ["/ws", "/ws/generic?serviceHost=my-agent.my-org"])
@pytest.mark.parametrize("scenario", ["text", "audio"])
def test_a_scenario_passes(talker: Launcher, home: Path, scenario: str, path: str) -> None:
    file = str(HERE / "scenarios" / f"{scenario}.yaml")
    done = clients.run("pipecat", "eval", "run", file, "--bot-url", talker.websocket_url(path), home=home, timeout=90)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1/1 passed" in done.stdout
    until(lambda: sessions(talker) == [], "the session's end")


def test_a_scenario_that_the_bot_does_not_meet_fails(talker: Launcher, home: Path) -> None:
    text = (HERE / "scenarios" / "text.yaml").read_text()
    assert "And good night" in text
    (home / "other.yaml").write_text(text.replace("You wrote: Good morning", "Good evening").replace("10000", "1000"))
    done = clients.run(
        "pipecat", "eval", "run", "other.yaml", "--bot-url", talker.websocket_url(), home=home, timeout=90
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0/1 passed" in done.stdout
