"""Modules that the platform mounts when a session's container starts: a build checks the bot without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.launchers import run

pytestmark = pytest.mark.needs_newest_packages

BOT = "\n\nasync def bot(args): ...\n"
NOTE = "(Krisp's SDK), which the platform mounts at run time: not checked"


@pytest.mark.parametrize(
    "lines",
    [
        "from pipecat.audio.filters.krisp_viva_filter import KrispVivaFilter",
        "from pipecat.audio.filters.krisp_viva_filter import KrispVivaFilter\nfilter = KrispVivaFilter()",
        "from pipecat.audio.turn.krisp_viva_turn import KrispVivaTurn\nturn = KrispVivaTurn()",
        "from pipecat.audio.vad.krisp_viva_vad import KrispVivaVadAnalyzer\nvad = KrispVivaVadAnalyzer()",
        "from pipecat.turns.user_start import KrispVivaIPUserTurnStartStrategy as Strategy\nstart = Strategy()",
        "import krisp_audio\nrate = krisp_audio.SamplingRate.Sr16000Hz\nclass Mine(krisp_audio.Session): ...",
        "from pipecat_ai_krisp.audio.krisp_processor import KrispAudioProcessor\nprocess = KrispAudioProcessor(1)",
    ],
)
def test_check_goes_on_without_them_and_says_so(tmp_path: Path, lines: str) -> None:
    (tmp_path / "bot.py").write_text(f"{lines}{BOT}")
    result = run("check", cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    assert f"Note: the bot imports {'pipecat_ai_krisp' if 'pipecat_ai' in lines else 'krisp_audio'} {NOTE}\n" in (
        result.stdout
    )
    assert "Krisp VIVA: DISABLED" in result.stdout


def test_check_tells_programs_too(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(f"import krisp_audio{BOT}")
    answer = json.loads(run("check", "--json", cwd=tmp_path).stdout)
    assert (answer["ok"], answer["notes"]) == (True, [f"the bot imports krisp_audio {NOTE}"])
    (tmp_path / "bot.py").write_text(BOT)
    assert json.loads(run("check", "--json", cwd=tmp_path).stdout)["notes"] == []


def test_a_bot_that_names_no_krisp_has_no_note_though_pipecats_turns_look_for_it(tmp_path: Path) -> None:
    module = "pipecat.processors.aggregators.llm_response_universal"
    (tmp_path / "bot.py").write_text(f"from {module} import LLMContextAggregatorPair{BOT}")
    assert json.loads(run("check", "--json", cwd=tmp_path).stdout)["notes"] == []
    (tmp_path / "turns.py").write_text("from pipecat.turns.user_start import KrispVivaIPUserTurnStartStrategy\n")
    (tmp_path / "bot.py").write_text(f"import turns{BOT}")
    assert json.loads(run("check", "--json", cwd=tmp_path).stdout)["notes"] == [f"the bot imports krisp_audio {NOTE}"]


def test_check_finds_the_mistakes_after_such_an_import(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(f"import krisp_audio\nimport nonexistent_package{BOT}")
    result = run("check", cwd=tmp_path)
    assert "bot.py:2 needs the package nonexistent_package" in result.stderr
    assert result.returncode == 13


def test_a_module_that_is_here_is_the_one_that_check_imports(tmp_path: Path) -> None:
    (tmp_path / "krisp_audio.py").write_text("HERE = 1\n")
    (tmp_path / "bot.py").write_text(f"import krisp_audio\nassert krisp_audio.HERE == 1{BOT}")
    result = run("check", cwd=tmp_path)
    assert (result.returncode, "Note: " in result.stdout) == (0, False)


def test_a_start_without_them_fails_and_says_who_has_them(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(f"from pipecat.audio.filters.krisp_viva_filter import KrispVivaFilter{BOT}")
    result = run(cwd=tmp_path)
    assert "bot.py:1 needs krisp_audio, Krisp's SDK. Pipecat Cloud mounts it; elsewhere mount it" in result.stderr
    assert "requirements.txt" not in result.stderr
    assert result.returncode == 13
