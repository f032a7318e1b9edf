"""An import of the bot that never ends: a log line says where it is, and PIPECAT_IMPORT_TIMEOUT ends the start."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest

from tests.support.launchers import PYTHON, Launcher, environment, free_port, run

SLEEPS = "import time\n\ndef main():\n    time.sleep(3600)\n\nmain()\n"
ENDLESS = {
    "a main() without its guard": (SLEEPS, "bot.py:4 in main: time.sleep(3600) (called from bot.py:6: main())"),
    "an event loop": ("import asyncio\nasyncio.run(asyncio.sleep(3600))\n", "bot.py:2: asyncio.run("),
    "a loop that computes": ("n = 0\nwhile True:\n    n += 1\n", "bot.py:"),
    "a loop that catches what it can": (
        "import time\nwhile True:\n    try:\n        time.sleep(1)\n    except BaseException:\n        pass\n",
        "bot.py:4: time.sleep(1)",
    ),
    "a thread that is waited for": ("import threading\nthreading.Event().wait()\n", "bot.py:2: threading.Event()"),
    "another program": ("import subprocess\nsubprocess.run(['sleep', '3'])\n", "bot.py:2: subprocess.run("),
    "a server that does not answer": (
        "import socket, urllib.request\nserver = socket.create_server(('127.0.0.1', 0))\n"
        "urllib.request.urlopen(f'http://127.0.0.1:{server.getsockname()[1]}')\n",
        "bot.py:3: urllib.request.urlopen(",
    ),
    "a module of the project": (
        "import helper\n",
        "helper.py:2: time.sleep(3600) (called from bot.py:1: import helper)",
    ),
    "a log sink": (
        "import time\nfrom loguru import logger\nlogger.add(lambda line: time.sleep(3600))\nlogger.info('x')\n",
        "bot.py:3 in <lambda>",
    ),
}
BOT = "async def bot(args): ...\n"


def write(folder: Path, source: str) -> None:
    (folder / "bot.py").write_text(source + BOT)
    (folder / "helper.py").write_text("import time\ntime.sleep(3600)\n")


@pytest.mark.parametrize("kind", ENDLESS)
def test_at_its_timeout_the_start_ends_with_the_line_that_still_runs(kind: str, tmp_path: Path) -> None:
    source, where = ENDLESS[kind]
    write(tmp_path, source)
    ended = run(cwd=tmp_path, PIPECAT_IMPORT_TIMEOUT="0.7")
    assert ended.returncode == 26
    (line,) = [line for line in ended.stderr.splitlines() if line.startswith("pipecat-base: ")]
    assert line.startswith(
        "pipecat-base: import_timed_out: The import of bot.py has not ended after 0.7 s (PIPECAT_IMPORT_"
    )
    assert where in line
    assert 'under if __name__ == "__main__"' in line


def test_check_ends_at_the_timeout_too(tmp_path: Path) -> None:
    write(tmp_path, f"print('printed by the bot')\n{SLEEPS}")
    ended = run("check", cwd=tmp_path, PIPECAT_IMPORT_TIMEOUT="0.5")
    assert (ended.returncode, ended.stdout) == (26, "")
    assert "import_timed_out: The import of bot.py has not ended after 0.5 s" in ended.stderr
    ended = run("check", "--json", cwd=tmp_path, PIPECAT_IMPORT_TIMEOUT="0.5")
    error = json.loads(ended.stdout)["error"]
    assert (ended.returncode, error["code"], error["exit_status"]) == (26, "import_timed_out", 26)
    assert error["frames"] == ["bot.py:7: main()", "bot.py:5 in main: time.sleep(3600)"]


def test_an_import_that_ends_in_time_is_served(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(BOT)
    with Launcher(tmp_path, PIPECAT_IMPORT_TIMEOUT="20") as launcher:
        assert launcher.post({}).status_code == 200
        assert "has not ended" not in launcher.log()


def test_with_reload_the_bot_is_fixed_after_the_timeout(tmp_path: Path) -> None:
    write(tmp_path, SLEEPS)
    with Launcher(tmp_path, command=["dev", "--reload"], wait=False, PIPECAT_IMPORT_TIMEOUT="0.5") as launcher:
        launcher.wait_for_log("import_timed_out")
        launcher.wait_for_log("Waiting for a change")
        (tmp_path / "bot.py").write_text(BOT)
        launcher.wait_until_ready()


def test_after_ten_seconds_a_line_says_where_the_import_is(tmp_path: Path) -> None:
    """The same in both isolation modes, and in check; all at once, as each takes ten seconds."""
    write(tmp_path, SLEEPS)
    said = f"The import of bot.py has not ended after 10 s: {ENDLESS['a main() without its guard'][1]}"
    with contextlib.ExitStack() as stack:
        launchers = [
            stack.enter_context(Launcher(tmp_path, wait=False, PIPECAT_ISOLATION=isolation))
            for isolation in ("none", "process")
        ]
        checking = stack.enter_context(
            subprocess.Popen(
                [PYTHON, "-m", "pipecat_base", "check"],
                cwd=tmp_path,
                env=environment(PORT=str(free_port())),
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(checking.kill)
        assert checking.stderr is not None
        assert said in checking.stderr.readline()
        for launcher in launchers:
            launcher.wait_for_log(said)
            assert launcher.http.get("/livez").json() == {"status": "starting"}
