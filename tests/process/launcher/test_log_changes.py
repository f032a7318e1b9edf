"""A bot changes loguru, logging, warnings or the standard streams in a call: later calls and their lines go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import BOTS, Launcher

DEEDS = re.findall(r"^def (\w+)", (BOTS / "log_changes" / "bot.py").read_text(), re.MULTILINE)
SESSION = re.compile(r"^\d{4}-\d\d-\d\d \S+ \| [A-Z]+ +\| \S+ \| (\S+) - (.*)$")


@pytest.fixture(scope="module", params=["console", "bot.jsonl"])
def launcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder: dict[str, Any] = (
        {"PCC_LOG_DIR": str(tmp_path_factory.mktemp("logs"))} if request.param == "bot.jsonl" else {}
    )
    with Launcher("log_changes", **folder) as running:
        yield running


def call(launcher: Launcher, session_id: str, **body: object) -> None:
    response = launcher.post(body, x_daily_session_id=session_id)
    assert (response.status_code, response.json()) == (200, {}), launcher.log()


def sessions_of(launcher: Launcher, text: str) -> list[str]:
    """The session of each of the launcher's lines that ends with the text."""
    launcher.wait_for_log(text)
    matches = filter(None, map(SESSION.match, launcher.log().splitlines()))
    return [match[1] for match in matches if match[2].endswith(text)]


@pytest.mark.parametrize("deed", DEEDS)
def test_calls_go_on_and_their_lines_have_their_session_once(launcher: Launcher, deed: str) -> None:
    with ThreadPoolExecutor() as pool:
        other = pool.submit(call, launcher, f"{deed}-other", seconds=0.3)
        launcher.wait_for_log(f"| {deed}-other - Session started")
        for number in range(3):
            call(launcher, f"{deed}-{number}", do=deed)
        other.result()
    call(launcher, f"{deed}-last")
    for session_id in (*(f"{deed}-{number}" for number in range(3)), f"{deed}-other", f"{deed}-last"):
        assert sessions_of(launcher, f"loguru {session_id}") == [session_id]
        if not (deed == "replace_handlers" and session_id.endswith(("0", "1", "2", "other"))):
            assert sessions_of(launcher, f"logging {session_id}") == [session_id]
        assert sessions_of(launcher, "Session ended: completed after 0.0 s")
    assert sessions_of(launcher, f"warned {deed}-last") == [f"{deed}-last"]
    launcher.wait_for_log(f"printed {deed}-last")
    assert launcher.lines("MINE loguru") == []
    assert launcher.is_ready()


def test_a_console_of_the_imports_own_format_that_a_call_removes_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import sys\nfrom loguru import logger\nlogger.remove()\nlogger.add(sys.stderr, format='MINE {message}')\n"
        "async def bot(args):\n    if args.body:\n        logger.remove()\n    logger.info('a line')\n"
    )
    with Launcher(tmp_path) as launcher:
        launcher.post({}, x_daily_session_id="s-1")
        assert launcher.lines("a line") == ["MINE a line"]
        launcher.post({"remove": True}, x_daily_session_id="s-2")
        assert sessions_of(launcher, "a line") == ["s-2"]
