"""``PYTHONOPTIMIZE``: Python drops assert statements, and with 2 docstrings; no command needs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.cli import usage
from pipecat_base.cli.call import audio
from tests.support.launchers import BOTS, Launcher, run
from tests.support.tones import tone

COMMANDS = ["", *usage.COMMANDS]
ENDING = ["init", "check", "check --json", "doctor", "token", "settings", "errors"]


OPTIMIZED: dict[str, Any] = {"PYTHONOPTIMIZE": "2"}
"""Drops what 1 does, and docstrings."""
TWILIO: dict[str, Any] = {"TWILIO_ACCOUNT_SID": "AC0", "TWILIO_AUTH_TOKEN": "stand-in"}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_the_same(command: str) -> None:
    arguments = [*command.split(), "--help"]
    expected = run(*arguments, cwd=BOTS)
    helped = run(*arguments, cwd=BOTS, **OPTIMIZED)
    assert (helped.returncode, helped.stdout, helped.stderr) == (0, expected.stdout, "")


@pytest.mark.parametrize("line", ENDING)
def test_a_command_that_ends_does(line: str, tmp_path: Path) -> None:
    if line != "init":
        (tmp_path / "bot.py").write_text("from pipecat.pipeline.pipeline import Pipeline\nasync def bot(args): ...\n")
    local = {
        **OPTIMIZED,
        "PIPECAT_ICE_SERVERS": "[]",
        "DAILY_API_URL": "http://127.0.0.1:1",
        "PIPECAT_WEBSOCKET_SECRET": "s" * 32,
    }
    ended = run(*line.split(), cwd=tmp_path, **local)
    assert (ended.returncode, bool(ended.stdout)) == (0, True), ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_served_bot_takes_calls_of_the_call_command(command: str, tmp_path: Path) -> None:
    assert run("init", ".", cwd=tmp_path).returncode == 0
    audio.write_wav(str(tmp_path / "speech.wav"), tone(440, 0.5, 8000), 8000)
    with Launcher(tmp_path, command=[command], PIPECAT_ICE_SERVERS="[]", **TWILIO, **OPTIMIZED) as launcher:
        for kind in ([], ["--webrtc"]):
            called = run(
                *["call", "speech.wav", *kind, "--json", "--port", str(launcher.port)],
                cwd=tmp_path,
                **OPTIMIZED,
            )
            assert called.returncode == 0, called.stdout + called.stderr
            assert json.loads(called.stdout)["calls"]
        assert launcher.stop() == 0
        assert "Traceback" not in launcher.log()


def test_an_error_of_the_bot_has_its_line(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import nowhere\nasync def bot(args): ...\n")
    ended = run(cwd=tmp_path, **OPTIMIZED)
    assert ended.returncode == 13
    assert "bot.py:1 needs the package nowhere" in ended.stderr
