"""`bot` is no `async def`: what it returns is awaited."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.callers import post
from tests.support.launchers import Launcher, run, until

ADVICE = 'A session ends when `bot` returns: write "async def bot(args)", or return what the session must await.'


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher("ordinary", SESSION_CANCEL_GRACE="5") as running:
        yield running


@pytest.mark.parametrize("returned", ["coroutine", "task", "future", "gathered", "thread", "awaitable", "partial"])
def test_what_an_ordinary_function_returns_is_awaited(launcher: Launcher, returned: str) -> None:
    response = post(launcher, {"returns": returned}, x_daily_session_id=f"s-{returned}")
    assert (response.status_code, response.headers["x-pipecat-session-outcome"]) == (200, "completed")
    launcher.wait_for_log(f"said in s-{returned}")
    assert not launcher.lines(f"s-{returned} - bot in bot.py returned")


@pytest.mark.parametrize(
    ("returned", "kind"),
    [
        ("nothing", "None"),
        ("dict", "a dict"),
        ("not called", "an async function"),
        ("generator", "a generator"),
        ("async generator", "an async_generator"),
    ],
)
def test_a_function_that_returns_nothing_awaitable_is_a_warning(launcher: Launcher, returned: str, kind: str) -> None:
    session_id = f"s-{returned}"
    response = post(launcher, {"returns": returned}, x_daily_session_id=session_id)
    assert response.headers["x-pipecat-session-outcome"] == "completed"
    (line,) = launcher.lines(f"| {session_id} - bot in bot.py returned {kind}: nothing to await. {ADVICE}")
    assert "WARNING" in line


def test_the_failure_of_a_returned_task_is_its_sessions(launcher: Launcher) -> None:
    response = post(launcher, {"returns": "failing task"}, x_daily_session_id="s-fails")
    assert (response.status_code, response.json()["error"]["code"]) == (500, "bot_failed")
    launcher.wait_for_log("| s-fails - bot in bot.py failed: ValueError: told to at bot.py:")


def test_a_returned_task_is_cancelled_with_its_session(launcher: Launcher) -> None:
    response = post(
        launcher, {"returns": "hanging task"}, x_daily_session_id="s-hangs", x_pcc_max_session_seconds="0.3"
    )
    assert response.headers["x-pipecat-session-outcome"] == "expired"
    launcher.wait_for_log("left s-hangs")


def test_a_function_that_blocks_is_named(launcher: Launcher) -> None:
    post(launcher, {"returns": "blocking"}, x_daily_session_id="s-blocks")
    launcher.wait_for_log("The event loop is blocked by bot.py:")
    assert launcher.lines("| s-blocks - bot in bot.py returned None: nothing to await.")
    until(launcher.is_ready, "ready")


def test_asyncio_run_inside_bot_fails_its_session_with_a_line(launcher: Launcher) -> None:
    response = post(launcher, {"returns": "asyncio.run"}, x_daily_session_id="s-run")
    assert response.status_code == 500
    launcher.wait_for_log("| s-run - bot in bot.py failed: RuntimeError: asyncio.run() cannot be called from")


FORMS = {
    "a lambda": "bot = lambda args: run(args)",
    "a function": "def bot(args):\n    return run(args)",
    "a wrapper": "def wrap(f):\n    def inner(*args):\n        return f(*args)\n    return inner\nbot = wrap(run)",
    "a partial of a lambda": "bot = functools.partial(lambda first, args: run(args), 1)",
    "an object": "class Bot:\n    def __call__(self, args):\n        return run(args)\nbot = Bot()",
    "a bound method": "class Bot:\n    def go(self, args):\n        return run(args)\nbot = Bot().go",
    "an awaitable class": (
        "class bot:\n    def __init__(self, args):\n        self.args = args\n"
        "    def __await__(self):\n        return run(self.args).__await__()"
    ),
    "a coroutine of types": "@types.coroutine\ndef bot(args):\n    yield from run(args).__await__()",
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_bot_that_return_an_awaitable_are_checked_and_run(tmp_path: Path, form: str) -> None:
    head = "import functools, types\nasync def run(args):\n    print('ran', flush=True)\n"
    (tmp_path / "bot.py").write_text(f"{head}{FORMS[form]}\n")
    checked = run("check", "--json", cwd=tmp_path)
    assert (checked.returncode, json.loads(checked.stdout)["warnings"]) == (0, [])
    with Launcher(tmp_path) as launcher:
        assert post(launcher).status_code == 200
        launcher.wait_for_log("ran\n")
        assert not launcher.lines("await")


@pytest.mark.parametrize("body", ["...", "print(args)", "if args:\n        return\n    return None"])
def test_a_function_that_can_return_nothing_but_none_is_a_warning_before_the_first_call(
    tmp_path: Path, body: str
) -> None:
    (tmp_path / "bot.py").write_text(f"def bot(args):\n    {body}\n")
    warning = f"`bot` in bot.py is an ordinary function that returns nothing to await. {ADVICE}"
    checked = run("check", "--json", cwd=tmp_path)
    assert (checked.returncode, json.loads(checked.stdout)["warnings"]) == (0, [warning])
    with Launcher(tmp_path) as launcher:
        (line,) = launcher.lines(warning)
        assert "WARNING" in line
