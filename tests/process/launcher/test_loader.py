"""Every mistake that a user can make in bot.py, and every form that is right."""

from __future__ import annotations

import functools
import json
import re
import signal
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.bot import functions, sources
from pipecat_base.errors import startup_errors
from tests.support.launchers import BOTS, Launcher, run

MISTAKES = sorted(path.name for path in (BOTS / "mistakes").iterdir())


@pytest.mark.parametrize("bot_error", MISTAKES)
def test_a_mistake_ends_the_start_with_its_own_line_and_status(bot_error: str) -> None:
    folder = BOTS / "mistakes" / bot_error
    status, expected = (folder / "expected.txt").read_text().split("\n", 1)
    result = run(cwd=folder, PIPECAT_LOG_LEVEL="NONE", SETUP_TIMEOUT="0.5")
    expected = expected.replace("{project}", str(folder)).replace("{json}", str(json.__file__))
    # How deep a recursion goes differs from Python to Python.
    assert re.sub(r"\.\.\. \d+ more", "... {number} more", result.stderr) == expected
    assert result.returncode == int(status)


def test_every_startup_error_has_a_status_and_code_of_its_own() -> None:
    errors = startup_errors()
    assert len({error.exit_status for error in errors}) == len(errors)
    assert len({error.code for error in errors}) == len(errors)


def test_a_lifespan_that_began_is_left_when_setup_fails() -> None:
    result = run(cwd=BOTS / "lifespan_then_failure")
    assert result.returncode == 21
    assert result.stdout == "begun\nleft\n"


def test_threads_that_the_import_started_hold_up_neither_a_failed_start_nor_check(tmp_path: Path) -> None:
    stuck = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    (tmp_path / "bot.py").write_text(stuck)
    assert run(cwd=tmp_path).returncode == 17
    (tmp_path / "bot.py").write_text(f"{stuck}async def bot(args): ...\n")
    assert run("check", cwd=tmp_path).returncode == 0


def test_a_dependency_missing_inside_a_library_is_named(tmp_path: Path) -> None:
    # As pipecat's services do it: the module's absence becomes an exception of their own.
    (tmp_path / "bot.py").write_text(
        "try:\n    import nonexistent_package\nexcept ModuleNotFoundError as e:\n"
        "    raise Exception(f'Missing module: {e}') from e\n"
    )
    result = run(cwd=tmp_path)
    assert "needs the package nonexistent_package" in result.stderr
    assert result.returncode == 13


def test_a_missing_module_that_an_exception_hides_on_purpose_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "try:\n    import nonexistent_package\nexcept ImportError:\n    raise ValueError('set KEY') from None\n"
    )
    result = run(cwd=tmp_path)
    assert "bot.py:4 raised ValueError: set KEY" in result.stderr
    assert "nonexistent_package" not in result.stderr
    assert result.returncode == 15


def test_a_module_that_the_installed_pipecat_lacks_is_no_missing_package(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import pipecat.no_such_module\n")
    result = run(cwd=tmp_path)
    assert "the installed pipecat has no module pipecat.no_such_module. Check its version." in result.stderr
    assert result.returncode == 14


def test_the_launchers_own_frames_are_not_shown() -> None:
    result = run(cwd=BOTS / "mistakes" / "exception_at_import")
    assert "pipecat_base" not in result.stderr
    assert "importlib" not in result.stderr
    assert "Traceback" not in result.stderr


def test_check_reports_a_mistake_as_json() -> None:
    result = run("check", "--json", cwd=BOTS / "mistakes" / "exit_at_import")
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert answer["error"]["code"] == "bot_exited"
    assert answer["error"]["frames"] == ["bot.py:3: sys.exit(4)"]
    assert result.returncode == answer["error"]["exit_status"] == 16


def test_check_accepts_a_good_bot_without_serving_or_setting_up() -> None:
    result = run("check", "--json", cwd=BOTS / "hooks")
    answer = json.loads(result.stdout)
    assert result.returncode == 0
    assert answer["ok"] is True
    assert answer["bot"]["hooks"] == ["setup", "teardown", "readyz", "create_file_storage"]
    assert [feature["name"] for feature in answer["features"]][:2] == ["Daily Transport", "Websocket Transport"]
    assert "setup ran" not in result.stderr


@pytest.mark.parametrize("arguments", [["check", "--bot", "agent.py"], ["--bot", "agent.py", "check"]])
def test_check_prints_for_people(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "agent.py").write_text("print('noise')\nasync def bot(args): ...\n")
    result = run(*arguments, cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith("bot in agent.py is fine\nDaily Transport: ")
    assert "noise" in result.stderr


def test_functions_that_look_like_hooks_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "def setUp(): ...\nasync def ready(): ...\ndef tear_down(): ...\ndef create_file_storage(): ...\n"
        "def step(): ...\nasync def bot(args): ...\n"
    )
    answer = json.loads(run("check", "--json", cwd=tmp_path).stdout)
    assert answer["warnings"] == [
        "`setUp` in bot.py is not called by the launcher; is the hook setup() meant?",
        "`ready` in bot.py is not called by the launcher; is the hook readyz() meant?",
        "`tear_down` in bot.py is not called by the launcher; is the hook teardown() meant?",
    ]
    with Launcher(tmp_path) as launcher:
        launcher.wait_for_log("is the hook setup() meant?")


def test_check_reads_the_env_file_as_dev_does(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("import os\nKEY = os.environ['KEY']\n\n\nasync def bot(args): ...\n")
    (tmp_path / ".env").write_text("\n# mine\nKEY=value\nnot a variable\n")
    result = run("check", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Warning: .env:4: not a variable (NAME=value); it is left out\n" in result.stdout
    (tmp_path / "here").mkdir()
    assert run("check", "--bot", "../bot.py", cwd=tmp_path / "here").returncode == 0
    result = run("check", "--no-env-file", cwd=tmp_path)
    assert result.returncode == 15
    assert "bot.py:2 reads the environment variable KEY, which is not set." in result.stderr


def test_a_setting_in_the_env_file_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    (tmp_path / ".env").write_text("A=1\n\n# mine\nMAX_SESSIONS=many\n")
    result = run("check", cwd=tmp_path)
    assert result.stderr == (
        'pipecat-base: settings_invalid: .env:4: MAX_SESSIONS: "many" is not a whole number (1 or more)\n'
    )
    assert run("check", cwd=tmp_path, MAX_SESSIONS="1").returncode == 0  # one that is set comes first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_a_slow_import_ends_at_once(number: int) -> None:
    with Launcher("slow_import", wait=False) as launcher:
        launcher.wait_for_log("importing")
        launcher.signal(number)
        assert launcher.wait(timeout=5) == 128 + number


def test_a_signal_during_a_slow_setup_ends_at_once() -> None:
    with Launcher("slow_setup", wait=False) as launcher:
        launcher.wait_for_log("setting up")
        launcher.signal()
        assert launcher.wait(timeout=5) == 143


class AsyncObject:
    async def __call__(self, args: Any) -> None: ...


async def plain(args: Any) -> None: ...


async def with_default(args: Any, extra: int = 1) -> None: ...


async def with_first(first: int, args: Any) -> None: ...


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any) -> Any:
        return function(*args)

    return wrapper


@pytest.mark.parametrize(
    "function",
    [plain, with_default, functools.partial(with_first, 1), AsyncObject(), AsyncObject().__call__, decorated(plain)],
)
def test_forms_of_bot_that_are_right(function: Any) -> None:
    module = types.ModuleType("bot")
    module.bot = function  # type: ignore[attr-defined]
    assert functions.validate(module, Path("bot.py")).function is function


def test_a_function_called_setup_that_needs_arguments_is_not_taken_for_the_hook() -> None:
    module = types.ModuleType("bot")
    module.bot = plain  # type: ignore[attr-defined]
    module.setup = with_first  # type: ignore[attr-defined]
    assert functions.validate(module, Path("bot.py")).setup is None


@pytest.mark.parametrize("setup", [{"stt": 1}, print, types.SimpleNamespace])
def test_what_is_called_setup_by_chance_is_not_taken_for_the_hook(setup: Any) -> None:
    module = types.ModuleType("bot")
    module.bot = plain  # type: ignore[attr-defined]
    module.setup = setup  # type: ignore[attr-defined]
    assert functions.validate(module, Path("bot.py")).setup is None


def test_a_mention_is_found_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {
        "one": "import pipecat\nfrom pipecatcloud_system import app\n",
        "two": "# pipecatcloud\n",
    }.items():
        (tmp_path / f"{name}.py").write_text(text)
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        monkeypatch.setitem(sys.modules, name, module)
        assert sources.mentions(str(tmp_path), rb"\bpipecatcloud\b") is (name == "two")


def test_the_bot_does_not_see_the_launchers_arguments(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import argparse\nargparse.ArgumentParser().parse_args()\nasync def bot(args): ...\n"
    )
    assert run("check", "--json", cwd=tmp_path).returncode == 0


def test_a_folder_called_bot_beside_bot_py_does_not_hide_it(tmp_path: Path) -> None:
    (tmp_path / "bot").mkdir()
    (tmp_path / "bot" / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    assert run("check", cwd=tmp_path).returncode == 0


def test_a_file_named_like_a_standard_module_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "platform.py").write_text("async def bot(args): ...\n")
    assert run("check", "--bot", "platform.py", cwd=tmp_path).returncode == 0


def test_modules_beside_a_bot_elsewhere_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    folder.mkdir()
    (folder / "helpers.py").write_text("x = 1\n")
    (folder / "sales.py").write_text("import helpers\nasync def bot(args): ...\n")
    assert run("check", cwd=tmp_path, PIPECAT_BOT="agents/sales.py").returncode == 0


def test_a_port_that_is_taken_is_one_line(obedient: Launcher) -> None:
    result = run("serve", "--port", str(obedient.port), cwd=BOTS / "obedient")
    assert result.returncode == 23
    assert result.stderr == (
        f"pipecat-base: port_unavailable: Cannot listen on 127.0.0.1 port {obedient.port}: Address already in use. "
        "Set PORT or PIPECAT_HOST, or stop what uses it.\n"
    )
