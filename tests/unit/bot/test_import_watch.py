"""An import that does not end is reported, ever more rarely, and ended at its timeout."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import NoReturn

import pytest

from pipecat_base.bot import import_watch, loader
from pipecat_base.bot.import_watch import watching
from pipecat_base.errors import ImportTimedOut

BOT = """
import time

def main():
    time.sleep({seconds})

main()

async def bot(args): ...
"""


def never(error: ImportTimedOut) -> NoReturn:
    raise AssertionError(error)


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    found: list[str] = []
    monkeypatch.setattr(import_watch, "warn_in_thread", found.append)
    return found


def import_for(tmp_path: Path, seconds: float, *, first_report: float) -> None:
    file = tmp_path / "slow_bot.py"
    file.write_text(BOT.format(seconds=seconds))
    with watching(file, None, never, first_report=first_report):
        loader.load(str(file))


def test_a_report_names_the_line_that_runs_and_the_one_that_called_it(tmp_path: Path, reports: list[str]) -> None:
    import_for(tmp_path, 0.5, first_report=0.3)
    assert reports == [
        "The import of slow_bot.py has not ended after 0.3 s: slow_bot.py:5 in main: time.sleep(0.5) "
        "(called from slow_bot.py:7: main()). If it never ends, move what runs into bot() or setup(), or under "
        'if __name__ == "__main__"; build what it downloads into the image.'
    ]


def test_reports_come_ever_more_rarely(tmp_path: Path, reports: list[str]) -> None:
    import_for(tmp_path, 1.5, first_report=0.1)
    assert [report.split(":")[0].rpartition("after ")[2] for report in reports] == ["0.1 s", "0.2 s", "0.4 s", "0.8 s"]


def test_an_import_that_ends_is_not_reported_and_leaves_no_thread(tmp_path: Path, reports: list[str]) -> None:
    before = threading.active_count()
    import_for(tmp_path, 0, first_report=5)
    assert not reports
    assert threading.active_count() == before
