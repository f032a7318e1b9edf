"""What commands print: to a reader that leaves early, and to one at a terminal who waits."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
from pathlib import Path

import pytest

from pipecat_base.cli import output
from tests.support.launchers import PYTHON, environment, free_port, run, until

WAITS = """
import os, time
while not os.path.exists("go-on"):
    time.sleep(0.01)

async def bot(args): ...
"""


def command(*arguments: str) -> list[str]:
    return [PYTHON, "-m", "pipecat_base", *arguments]


@pytest.mark.parametrize(
    ("line", "both"),
    [
        ("check", False),
        ("check --json", False),
        ("check --bot nowhere.py", True),
        ("settings", False),
        ("errors --format json", False),
    ],
)
def test_a_command_ends_quietly_when_its_reader_is_gone(tmp_path: Path, line: str, both: bool) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        command(*line.split()),
        cwd=tmp_path,
        env=environment(PYTHONUNBUFFERED=None),
        stdout=writer,
        stderr=writer if both else subprocess.PIPE,
        timeout=60,
        check=False,
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr or b"") == (141, b"")


def test_another_pipe_that_breaks_is_not_taken_for_it() -> None:
    def fail() -> int:
        raise BrokenPipeError(32, "a socket's")

    with pytest.raises(BrokenPipeError, match="a socket's"):
        output.ending_quietly(fail)


def test_a_long_import_is_counted_at_a_terminal_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(WAITS)
    ours, theirs = pty.openpty()
    checking = subprocess.Popen(
        command("check"),
        cwd=tmp_path,
        env=environment(PORT=str(free_port())),
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    os.set_blocking(ours, False)
    shown = b""

    def more() -> bytes:
        nonlocal shown
        with contextlib.suppress(OSError):  # nothing yet
            shown += os.read(ours, 4096)
        return shown

    until(lambda: b"Importing bot.py ... " in more(), "progress")
    (tmp_path / "go-on").touch()
    printed, _ = checking.communicate(timeout=60)
    assert checking.returncode == 0
    assert printed.startswith(b"bot in bot.py is fine\n")
    assert more().endswith(b"\r\x1b[K")
    os.close(ours)


def test_no_progress_is_written_to_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import time\ntime.sleep(1.6)\nasync def bot(args): ...\n")
    checked = run("check", cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
