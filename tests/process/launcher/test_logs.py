"""One format with the session's id, and nothing of the bot's own taken away."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.launchers import Launcher

LINE = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \| [A-Z]+ +\| [\w.<>]+:[\w<>]+:\d+ \| (\S+) - (.*)$")


def lines(launcher: Launcher, text: str) -> list[re.Match[str]]:
    launcher.wait_for_log(text)
    found = [line for line in launcher.log().splitlines() if text in line]
    matches = [match for line in found if (match := LINE.match(line))]
    assert len(matches) == len(found), found
    return matches


def run_session(launcher: Launcher, session_id: str = "s-1", **body: object) -> None:
    launcher.http.post("/bot", json=body, headers={"x-daily-session-id": session_id})


def test_loguru_and_logging_carry_the_session_in_one_format(obedient: Launcher) -> None:
    run_session(obedient, "log-1", do="log")
    for text in ("through loguru {braces}", "through logging {braces} formatted"):
        (match,) = lines(obedient, text)
        assert match.groups() == ("log-1", text)
    (ready,) = lines(obedient, "Ready: ")
    assert ready.group(1) == "NONE"


def test_a_sink_that_the_bot_adds_stays(tmp_path: Path) -> None:
    sink = tmp_path / "sink.log"
    with Launcher("sinks", SINK=str(sink)) as launcher:
        run_session(launcher)
        assert "SINK a line\n" in sink.read_text()
        assert len(lines(launcher, "a line")) == 1


def test_the_boilerplate_of_examples_neither_breaks_nor_doubles_the_log() -> None:
    with Launcher("examples_boilerplate") as launcher:
        run_session(launcher)
        (match,) = lines(launcher, "a line")
        assert match.group(1) == "s-1"
        (match,) = lines(launcher, "imported")
        assert match.group(1) == "NONE"


def test_the_access_line_carries_an_id_that_was_minted() -> None:
    with Launcher("obedient") as launcher:
        minted = launcher.http.post("/bot").headers["x-daily-session-id"]
        (match,) = lines(launcher, "POST /bot 200 in ")
        assert match.group(1) == minted


def test_a_console_format_of_the_bots_own_is_kept() -> None:
    with Launcher("own_format") as launcher:
        run_session(launcher)
        assert [line for line in launcher.log().splitlines() if "a line" in line] == ["MINE a line"]


def test_basic_config_keeps_its_level_and_not_its_handler() -> None:
    with Launcher("basicconfig") as launcher:
        run_session(launcher)
        (match,) = lines(launcher, "a debug line")
        assert match.group(1) == "s-1"
        assert "ValueError: told to logging" in launcher.log()
        assert "DEBUG:users" not in launcher.log()


def test_json_on_the_console_is_kept() -> None:
    with Launcher("json_logging") as launcher:
        run_session(launcher)
        assert [line for line in launcher.log().splitlines() if "a line" in line] == ['{"json": "a line"}']


def write_bot(folder: Path, setup: str, body: str = "logger.info('a line')") -> Path:
    (folder / "bot.py").write_text(
        f"import logging, sys\nfrom loguru import logger\n{setup}\n\n\nasync def bot(args):\n    {body}\n"
    )
    return folder


BRIDGE = """
class InterceptHandler(logging.Handler):
    def emit(self, record):
        logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())


logging.basicConfig(handlers=[InterceptHandler()], level=0, force=True)
"""
PROPAGATE = """
class PropagateHandler(logging.Handler):
    def emit(self, record):
        logging.getLogger(record.name).handle(record)


logger.add(PropagateHandler(), format="{message}")
"""
DICT_CONFIG = """
import logging.config
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "loggers": {"uvicorn": {"level": "INFO"}, "uvicorn.error": {"level": "INFO"}, "uvicorn.access": {"level": "INFO"}},
    "root": {"level": "INFO"},
})
"""


@pytest.mark.parametrize("setup", [BRIDGE, PROPAGATE])
def test_the_bridges_of_logurus_documentation_neither_double_nor_break_lines(tmp_path: Path, setup: str) -> None:
    both = "logger.info('a line')\n    logging.getLogger('users').info('another one')"
    with Launcher(write_bot(tmp_path, setup, both)) as launcher:
        run_session(launcher)
        for text in ("a line", "another one"):
            (match,) = lines(launcher, text)
            assert match.group(1) == "s-1"
        assert "Logging error" not in launcher.log()


OTHER_HANDLER = """
class Counter(logging.Handler):
    def emit(self, record):
        pass


logging.getLogger().addHandler(Counter())
"""


def test_a_handler_of_another_kind_beside_loguru_does_not_silence_logging(tmp_path: Path) -> None:
    with Launcher(write_bot(tmp_path, OTHER_HANDLER, "logging.getLogger('users').info('a line')")) as launcher:
        run_session(launcher)
        (match,) = lines(launcher, "a line")
        assert match.group(1) == "s-1"


def test_a_dict_config_does_not_bring_request_lines_and_their_secrets_back(tmp_path: Path) -> None:
    from websockets.sync.client import connect

    with Launcher(write_bot(tmp_path, DICT_CONFIG)) as launcher:
        with connect(f"{launcher.websocket_url()}?token=t0ken&body=e30", proxy=None):
            launcher.wait_for_log("Session ended")
        assert "t0ken" not in launcher.log()
        assert "body=" not in launcher.log()


def test_boilerplate_in_a_module_that_a_session_imports_does_not_fail_it(tmp_path: Path) -> None:
    (tmp_path / "impl.py").write_text("from loguru import logger\nlogger.remove(0)\n")
    with Launcher(write_bot(tmp_path, "", "import impl")) as launcher:
        assert launcher.http.post("/bot").status_code == 200


def test_probes_are_not_logged_and_other_requests_are(obedient: Launcher) -> None:
    obedient.http.get("/livez")
    obedient.http.get("/readyz")
    obedient.http.get("/nowhere?secret=1")
    assert lines(obedient, "GET /nowhere 404 in ")
    assert "livez" not in obedient.log()
    assert "readyz" not in obedient.log()


def test_a_path_can_not_forge_a_line(obedient: Launcher) -> None:
    obedient.http.get("/x%0A2026-01-01%20forged")
    assert not [line for line in obedient.log().splitlines() if line.startswith("2026-01-01 forged")]


def test_none_is_silent() -> None:
    with Launcher("examples_boilerplate", PIPECAT_LOG_LEVEL="NONE", DRAIN_NOTICE="0") as launcher:
        run_session(launcher)
        assert launcher.stop() == 0
        assert launcher.log() == ""
    with Launcher("obedient", PIPECAT_LOG_LEVEL="NONE", DRAIN_NOTICE="0") as launcher:
        run_session(launcher, do="raise")
        assert launcher.stop() == 0
        assert [line for line in launcher.log().splitlines() if not line.startswith('{"said"')] == []


@pytest.mark.parametrize(("level", "seen"), [("INFO", False), ("DEBUG", True)])
def test_the_level_holds(level: str, seen: bool) -> None:
    with Launcher("examples_boilerplate", PIPECAT_LOG_LEVEL=level) as launcher:
        run_session(launcher)
        assert ("a line" in launcher.log()) is seen


def test_a_log_folder_that_can_not_be_written_does_not_stop_the_bot(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Launcher("examples_boilerplate", PCC_LOG_DIR=str(tmp_path / "file" / "logs")) as launcher:
        assert "PCC_LOG_DIR: " in launcher.log()


def test_the_features_summary_is_logged_when_asked_for() -> None:
    with Launcher("obedient", PCC_LOG_FEATURES_SUMMARY="true") as launcher:
        launcher.wait_for_log("WebSocket Authentication: ")
        summary = [match.group(2) for match in map(LINE.match, launcher.log().splitlines()) if match]
        summary = summary[summary.index("=" * 60) :]
        assert summary[:3] == ["=" * 60, "Features available in this base image:", "=" * 60]
        assert "feature_manager:log_features_summary:" in launcher.log()
