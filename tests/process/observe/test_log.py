"""The log that an operator reads at three in the morning."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import ISOLATION, Launcher, run, until


def entries(launcher: Launcher) -> list[dict[str, Any]]:
    """Every line of the log, as JSON."""
    return [json.loads(line) for line in launcher.log().splitlines()]


def test_as_json_every_line_is_an_object_also_printed_ones() -> None:
    with Launcher("observed", PIPECAT_LOG_FORMAT="json", DRAIN_NOTICE="0") as launcher:
        launcher.post({"print": "what was printed", "raise": "boom\nbang"}, x_daily_session_id="s-1")
        until(lambda: [e for e in entries(launcher) if e["stream"] == "stdout"], "what was printed")
        assert launcher.stop() == 0
        found = entries(launcher)
    (printed,) = [entry for entry in found if entry["stream"] == "stdout"]
    assert (printed["line"], printed["session_id"]) == ("what was printed", "s-1")
    (failure,) = [entry for entry in found if "failed: ValueError: boom bang at bot.py:" in entry["line"]]
    assert (failure["level"], failure["session_id"]) == ("ERROR", "s-1")
    assert "Traceback" in failure["line"]
    (warning,) = [entry for entry in found if "a warning of the bot's" in entry["line"]]
    assert (warning["level"], warning["session_id"]) == ("WARNING", "s-1")
    assert all(entry["@timestamp"] for entry in found)
    assert found[-1]["line"] == "Stopped"
    assert all(entry["message"] == entry["line"] for entry in found)
    assert [entry["severity"] for entry in (printed, failure, warning)] == ["DEFAULT", "ERROR", "WARNING"]


def test_as_json_each_level_has_a_severity_of_google_clouds(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import logging\nfrom loguru import logger\nlogger.level('LOUD', no=45)\nasync def bot(args):\n"
        "    for level in ('TRACE', 'DEBUG', 'INFO', 'SUCCESS', 'WARNING', 'ERROR', 'CRITICAL', 'LOUD'):\n"
        "        logger.log(level, f'at {level}')\n    logging.log(35, 'at 35')\n"
    )
    logs = tmp_path / "logs"
    variables: dict[str, Any] = {"PIPECAT_LOG_FORMAT": "json", "PIPECAT_LOG_LEVEL": "TRACE", "PCC_LOG_DIR": str(logs)}
    with Launcher(tmp_path, **variables) as launcher:
        launcher.post({})
        launcher.wait_for_log("at 35")
        found = {entry["message"]: entry["severity"] for entry in entries(launcher)}
    assert {line.removeprefix("at "): found[line] for line in found if line.startswith("at ")} == {
        **{level: level for level in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")},
        "TRACE": "DEBUG",
        "SUCCESS": "INFO",
        "LOUD": "DEFAULT",
        "35": "DEFAULT",
    }
    # The platform's file has its own fields only.
    recorded = [json.loads(line) for line in (logs / "bot.jsonl").read_text().splitlines()]
    assert {name for entry in recorded for name in entry} == {"@timestamp", "stream", "level", "session_id", "line"}


def test_as_json_a_failed_start_is_an_object_too(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import nothing_of_this_name\n")
    ended = run("serve", cwd=tmp_path, PIPECAT_LOG_FORMAT="json")
    assert ended.returncode != 0
    found = [json.loads(line) for line in ended.stderr.splitlines()]
    assert any("nothing_of_this_name" in entry["line"] == entry["message"] for entry in found)


def test_json_lines_stay_in_the_output_if_the_folder_cannot_be_used() -> None:
    with Launcher("observed", PIPECAT_LOG_FORMAT="json", PCC_LOG_DIR="/proc/nowhere") as launcher:
        launcher.post({"return": True})
        until(lambda: "Session ended" in launcher.log(), "its end")
        first, *rest = launcher.log().splitlines()
    assert "PCC_LOG_DIR" in first
    assert all(line.startswith('{"@timestamp"') for line in rest)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_warning_during_the_import_is_logged(tmp_path: Path, log_format: str) -> None:
    (tmp_path / "bot.py").write_text("import warnings\n\nwarnings.warn('at import')\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path, PIPECAT_LOG_FORMAT=log_format) as launcher:
        launcher.wait_for_log("UserWarning: at import")
        assert len(launcher.lines("UserWarning: at import")) == 1


def test_a_refusal_is_logged_in_one_line() -> None:
    with Launcher("observed", MAX_SESSIONS="1", PIPECAT_GATEWAY="1") as launcher:
        launcher.http.post("/v1/public/agent/start", json={"body": {"end": "stay"}})
        until(lambda: not launcher.is_ready(), "the place is taken")
        assert launcher.post({}, x_daily_session_id="late").status_code == 429
        launcher.wait_for_log("Refused POST /bot: at_capacity")
        # Whatever is logged of it is there once a later request's line is.
        assert launcher.http.get("/nowhere").status_code == 404
        launcher.wait_for_log("GET /nowhere 404")
        (line,) = launcher.lines("| late - ")
        assert "| WARNING " in line


def test_requests_of_the_page_are_not_logged() -> None:
    with Launcher("observed", PIPECAT_GATEWAY="1") as launcher:
        for path in ("/", "/page/app.js", "/page/style.css", "/sessions", "/status"):
            assert launcher.http.get(path).status_code == 200
        assert launcher.http.get("/page/nothing.js").status_code == 404
        launcher.wait_for_log("GET /page/nothing.js 404")
        assert len(launcher.lines(" 200 in ")) == 0


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks do not tell their context before Python 3.12")
def test_a_blocked_loop_and_a_background_failure_are_logged_with_their_session() -> None:
    with Launcher("observed") as launcher:
        launcher.post({"block": 1.6, "return": True}, x_daily_session_id="s-block")
        launcher.wait_for_log("| s-block - The event loop is blocked by bot.py:")
        launcher.post({"background": True, "return": True}, x_daily_session_id="s-background")
        launcher.wait_for_log("| s-background - Task exception was never retrieved")


def test_a_stall_is_always_logged() -> None:
    with Launcher("observed") as launcher:
        launcher.post({"block": 1.6, "return": True})
        launcher.wait_for_log("The event loop is blocked by bot.py:")
        consequence = "its session waits" if ISOLATION == "process" else "every session waits"
        assert launcher.lines(consequence)
