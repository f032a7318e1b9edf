"""A start that does not come to serving: what is said of it, to people and to the platform."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.launcher import platform
from tests.support.launchers import BOTS, Launcher, measured, run

EARLY = "SIGTERM received before the server was up; nothing to drain, exiting"
HERE = "print('here\\n', end='', flush=True)"
"""In one write: its end is not overtaken by what is said next."""
SLOW = {
    "import": f"import time\n{HERE}\ntime.sleep(60)\n",
    "setup": f"import asyncio\n\n\nasync def setup():\n    {HERE}\n    await asyncio.sleep(60)\n",
    "blocked": f"import time\n\n\nasync def setup():\n    {HERE}\n    time.sleep(60)\n",
}


@pytest.mark.parametrize("slow", SLOW)
@pytest.mark.parametrize("with_lane", [False, True], ids=["console", "lane"])
def test_sigterm_while_starting_is_one_line(tmp_path: Path, slow: str, with_lane: bool) -> None:
    (tmp_path / "bot.py").write_text(f"{SLOW[slow]}\n\nasync def bot(args): ...\n")
    variables: dict[str, Any] = {"PCC_LOG_DIR": str(tmp_path)} if with_lane else {}
    with Launcher(tmp_path, wait=False, **variables) as launcher:
        launcher.wait_for_log("here\n")
        launcher.signal()
        assert launcher.wait() == 128 + signal.SIGTERM
        assert launcher.lines("SIGTERM") == [EARLY]
        assert "Traceback" not in launcher.log()
    if with_lane:
        records = [json.loads(line) for line in (tmp_path / "bot.jsonl").read_text().splitlines()]
        (said,) = [record for record in records if record["line"] == EARLY]
        assert (said["stream"], said["level"]) == ("app", "WARNING")


@pytest.mark.parametrize(
    ("wanted", "module"), [(None, "asyncio"), ("auto", "uvloop"), ("uvloop", "uvloop"), ("asyncio", "asyncio")]
)
def test_the_loop_is_the_one_that_is_asked_for_whatever_is_installed(
    tmp_path: Path, wanted: str | None, module: str
) -> None:
    (tmp_path / "bot.py").write_text(
        "import asyncio\n\n\nasync def bot(args):\n"
        "    print('the loop is of', type(asyncio.get_running_loop()).__module__.split('.')[0], flush=True)\n"
    )
    with Launcher(tmp_path, PIPECAT_EVENT_LOOP=wanted) as launcher:
        assert launcher.post({}).status_code == 200
        launcher.wait_for_log(f"the loop is of {module}")


MISTAKES: list[tuple[str, dict[str, str], int, str]] = [
    ("async def bot(args): ...\n", {"MAX_SESSIONS": "x"}, 24, 'MAX_SESSIONS: "x" is not a whole number (1 or more)'),
    ("async def bot(args) ...\n", {}, 12, "bot.py, line 1: expected ':'. Fix that line: async def bot(args) ..."),
    ("x = 1\n", {}, 17, "bot.py has no function `bot`; it has no functions at all."),
    ("import nowhere_to_be_found\n", {}, 13, "bot.py:1 needs the package nowhere_to_be_found"),
    ("def setup():\n    raise ValueError('a [broken]\\nkey')\n\n\nasync def bot(args): ...\n", {}, 21,
     "setup() of bot.py raised ValueError: a (broken) key."),
]  # fmt: skip


@pytest.mark.parametrize(("bot", "variables", "status", "reason"), MISTAKES)
def test_why_a_start_failed_is_the_termination_message(
    tmp_path: Path, bot: str, variables: dict[str, str], status: int, reason: str
) -> None:
    (tmp_path / "bot.py").write_text(bot)
    message = tmp_path / "termination-log"
    message.write_text("an older and much longer message of another container " * 10)
    wanted = {"PCC_TERMINATION_LOG_PATH": str(message), "PCC_LOG_DIR": str(tmp_path / "logs"), **variables}
    with Launcher(tmp_path, wait=False, **wanted) as launcher:
        assert launcher.wait() == status
        said = message.read_text()
        assert said.startswith(f"Refusing to start: {reason}"), said
        assert "\n" not in said
        assert "[" not in said
        # People get it once, with its code and their own frames.
        assert launcher.log().count(reason.partition(" (broken)")[0].partition(": a")[0]) >= 1
    records = [json.loads(line) for line in (tmp_path / "logs" / "bot.jsonl").read_text().splitlines()]
    (refused,) = [record for record in records if record["line"].startswith("Refusing to start: ")]
    assert (refused["stream"], refused["level"]) == ("app", "CRITICAL")
    assert refused["line"].replace("[", "(").replace("]", ")") == said


def test_a_termination_message_that_is_made_is_for_its_own_user_alone(tmp_path: Path) -> None:
    message = tmp_path / "message"
    assert run("serve", "--port", "abc", cwd=BOTS / "obedient", PCC_TERMINATION_LOG_PATH=str(message)).returncode == 24
    assert stat.S_IMODE(message.stat().st_mode) == 0o600


def test_a_machine_that_is_no_pod_is_not_littered() -> None:
    """Where the file is there, in a container, it is written: tests/system/image."""
    assert run("serve", "--port", "abc", cwd=BOTS / "obedient").returncode == 24
    assert not Path("/dev/termination-log").exists()


def test_a_message_that_cannot_be_written_changes_nothing() -> None:
    result = run("serve", "--port", "abc", cwd=BOTS / "obedient", PCC_TERMINATION_LOG_PATH="/nowhere/at/all")
    assert (result.returncode, result.stderr.count("\n")) == (24, 1)


@pytest.mark.parametrize("name", ["PCC_TERMINATION_LOG_PATH", "PCC_LOG_DIR"])
def test_a_pipe_that_nobody_reads_holds_nothing_up(tmp_path: Path, name: str) -> None:
    pipe = tmp_path / "bot.jsonl"
    os.mkfifo(pipe)
    value = str(pipe if name == "PCC_TERMINATION_LOG_PATH" else tmp_path)
    with measured() as seconds:
        assert run("serve", "--port", "abc", cwd=BOTS / "obedient", **{name: value}).returncode == 24
        assert seconds() < 10


@pytest.mark.parametrize("with_lane", [False, True], ids=["console", "lane"])
def test_standard_output_may_be_closed(tmp_path: Path, with_lane: bool) -> None:
    (tmp_path / "bot.py").write_text("import os\n\n\nasync def bot(args):\n    os.write(1, b'written\\n')\n")
    close = ["sh", "-c", 'exec "$0" "$@" >&-']
    variables: dict[str, Any] = {"PCC_LOG_DIR": str(tmp_path)} if with_lane else {}
    with Launcher(tmp_path, prefix=close, DRAIN_NOTICE="0", **variables) as launcher:
        assert launcher.post({}).status_code == 200
        assert launcher.stop() == 0
        assert "Traceback" not in launcher.log()
    if with_lane:
        assert '"line":"written"' in (tmp_path / "bot.jsonl").read_text()


def test_a_good_start_and_a_good_end_leave_no_message(tmp_path: Path) -> None:
    message = tmp_path / "message"
    with Launcher("obedient", PCC_TERMINATION_LOG_PATH=str(message), DRAIN_NOTICE="0") as launcher:
        assert launcher.stop() == 0
    assert not message.exists()


def test_the_token_refresher_is_told_where_its_folder_is(tmp_path: Path) -> None:
    """At the usual place, in a container: tests/system/image."""
    platform.notify_token_refresher(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()
    platform.notify_token_refresher(str(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["shutdown"]
    (tmp_path / "shutdown").write_text("kept")
    os.utime(tmp_path / "shutdown", (0, 0))
    platform.notify_token_refresher(str(tmp_path))
    assert (tmp_path / "shutdown").read_text() == "kept"
    assert (tmp_path / "shutdown").stat().st_mtime > 0


UNBUILDABLE = """
from dataclasses import dataclass


@dataclass
class RunnerArguments: ...


class DailyRunnerArguments(RunnerArguments):
    def __init__(self):
        raise ValueError("no")


@dataclass
class WebSocketRunnerArguments:
    websocket: object
"""
PIPECATS: list[tuple[dict[str, str], str]] = [
    (
        {"pipecat/__init__.py": ""},
        "pipecat-ai {version} is too old for this image, which needs pipecat-ai 0.0.78 or newer: upgrade pipecat-ai in"
        " the agent image and deploy again.",
    ),
    (
        {"pipecat/__init__.py": "", "pipecat/runner/types.py": "raise OSError('libx.so:\\n  [cannot] open')"},
        "pipecat-ai {version} failed to import (OSError: libx.so: (cannot) open): fix the agent image's dependencies.",
    ),
    (
        {"pipecat/__init__.py": "", "pipecat/runner/types.py": "class RunnerArguments: ...\n"},
        "pipecat-ai {version} has no DailyRunnerArguments, WebSocketRunnerArguments in pipecat.runner.types, which this"
        " image builds session arguments on: pin a pipecat-ai release that provides them.",
    ),
    (
        {"pipecat/__init__.py": "", "pipecat/runner/types.py": UNBUILDABLE},
        "pipecat-ai {version} cannot build the DailyRunnerArguments this image hands bot() (ValueError: no). This image"
        " supports pipecat-ai 0.0.78 or newer.",
    ),
]


@pytest.mark.parametrize("on_path", [False, True], ids=["beside", "installed"])
@pytest.mark.parametrize(("files", "reason"), PIPECATS)
def test_a_pipecat_that_cannot_be_served_ends_the_start(
    tmp_path: Path, files: dict[str, str], reason: str, on_path: bool
) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    (tmp_path / "bot.py").write_text("async def bot(args):\n    from pipecat.runner.types import RunnerArguments\n")
    message = tmp_path / "message"
    path = {"PYTHONPATH": str(tmp_path)} if on_path else {}
    variables: dict[str, Any] = {"PCC_TERMINATION_LOG_PATH": str(message), **path}
    with Launcher(tmp_path, wait=False, **variables) as launcher:
        assert launcher.wait() == 78
        # The version is that of the installed distribution; the module is the test's.
        from importlib.metadata import version

        assert message.read_text() == f"Refusing to start: {reason.format(version=version('pipecat-ai'))}"
        assert launcher.lines("pipecat-base: pipecat_unusable: pipecat-ai ")


def test_a_bot_that_fails_on_a_broken_pipecat_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "pipecat" / "runner").mkdir(parents=True)
    (tmp_path / "pipecat" / "__init__.py").write_text("import json\njson.nothing\n")
    (tmp_path / "pipecat" / "runner" / "types.py").write_text("")
    (tmp_path / "bot.py").write_text("import pipecat\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path, wait=False) as launcher:
        assert launcher.wait() == 78
        assert "failed to import (AttributeError: module 'json' has no attribute 'nothing')" in launcher.log()


def test_a_mistake_of_the_bots_own_stays_its_own_beside_a_good_pipecat(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("from pipecat.runner.types import Nothing\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path, wait=False) as launcher:
        assert launcher.wait() == 14
        assert "bot_import_failed: An import in bot.py:1 failed" in launcher.log()


CLOUD = """
from dataclasses import dataclass

from pipecat.runner.types import *


@dataclass
class PipecatSessionArguments(RunnerArguments): ...


@dataclass
class WebSocketSessionArguments(WebSocketRunnerArguments): ...


class DailySessionArguments(DailyRunnerArguments):
    def __init__(self):
        raise ValueError("no")
"""


def test_a_pipecatcloud_that_a_library_of_the_bots_imports_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "site" / "pipecatcloud").mkdir(parents=True)
    (tmp_path / "site" / "pipecatcloud" / "__init__.py").write_text("")
    (tmp_path / "site" / "pipecatcloud" / "agent.py").write_text(CLOUD)
    (tmp_path / "site" / "library.py").write_text("import pipecatcloud.agent\n")
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "bot.py").write_text("import library\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path / "bot", wait=False, PYTHONPATH=str(tmp_path / "site")) as launcher:
        assert launcher.wait() == 78
        assert "cannot build the DailySessionArguments this image hands bot() (TypeError: " in launcher.log()


def test_arguments_of_an_odd_kind_for_moq_refuse_nothing(tmp_path: Path) -> None:
    (tmp_path / "pipecat" / "runner").mkdir(parents=True)
    (tmp_path / "pipecat" / "__init__.py").write_text("")
    types = (
        "from dataclasses import dataclass\n\n\n@dataclass\nclass RunnerArguments: ...\n\n\n"
        "@dataclass\nclass DailyRunnerArguments(RunnerArguments):\n    room_url: str\n    token: str\n\n\n"
        "@dataclass\nclass WebSocketRunnerArguments(RunnerArguments):\n    websocket: object\n\n\n"
        "class MOQRunnerArguments: ...\n"
    )
    (tmp_path / "pipecat" / "runner" / "types.py").write_text(types)
    (tmp_path / "bot.py").write_text("import pipecat\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path) as launcher:
        assert launcher.post({}).status_code == 200
        entry = launcher.http.get("/pcc/capabilities").json()["capabilities"]["transport.moq"]
        assert entry["reason"].startswith("MoQ sessions need pipecat-ai 1.12.0 or newer")


def test_check_says_what_serving_would_ignore_and_prints_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import os, subprocess\nos.write(1, b'written\\n')\nsubprocess.run(['echo', 'echoed'])\nprint('printed')\n\n\n"
        "async def bot(args): ...\n"
    )
    result = run("check", "--json", cwd=tmp_path, PIPECAT_LOG_LEVEL="DEBIG")
    warnings = json.loads(result.stdout)["warnings"]
    assert [warning for warning in warnings if warning.startswith('PIPECAT_LOG_LEVEL: "DEBIG" is not one of ')]
    for said in ("written", "echoed", "printed"):
        assert said in result.stderr


def test_where_arguments_of_webrtc_cannot_be_built_it_is_off_and_all_else_is_served(tmp_path: Path) -> None:
    (tmp_path / "site" / "pipecatcloud").mkdir(parents=True)
    (tmp_path / "site" / "pipecatcloud" / "__init__.py").write_text("")
    cloud = CLOUD[: CLOUD.index("class DailySessionArguments")] + (
        "@dataclass\nclass DailySessionArguments(DailyRunnerArguments): ...\n\n\n"
        "class SmallWebRTCSessionArguments(SmallWebRTCRunnerArguments):\n    def __init__(self):\n"
        "        raise ValueError('no')\n"
    )
    (tmp_path / "site" / "pipecatcloud" / "agent.py").write_text(cloud)
    (tmp_path / "bot.py").write_text("import pipecatcloud.agent\n\n\nasync def bot(args): ...\n")
    with Launcher(tmp_path, PYTHONPATH=str(tmp_path / "site")) as launcher:
        (line,) = launcher.lines("the image serves without it, and the transports that need it are off.")
        assert "cannot build the SmallWebRTCSessionArguments (TypeError: " in line
        refused = launcher.http.post("/api/offer", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "not_served")
        assert "cannot build the SmallWebRTCSessionArguments" in refused.json()["error"]["message"]
        assert launcher.post({}, x_daily_transport_type="webrtc").status_code == 501
        assert launcher.http.get("/pcc/capabilities").json()["capabilities"]["transport.webrtc"]["available"] is False
        assert launcher.post({}).status_code == 200
