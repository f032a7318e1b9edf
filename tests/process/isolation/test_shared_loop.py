"""A bot ends what it finds on the event loop; the launcher and two other calls go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.bystanders import Bystanders, opened
from tests.support.callers import close_code
from tests.support.launchers import Launcher, in_one_process


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def launcher(request: pytest.FixtureRequest) -> Iterator[Launcher]:
    with Launcher("shared_loop", PIPECAT_EVENT_LOOP=request.param) as running:
        yield running


CANCELLED = "bot in bot.py was cancelled by its own code; that ends its session only"
NEW_EXECUTOR = "The bot has shut down the event loop's executor; the loop uses a new one now"
STOPPED = "The bot called loop.stop(); the loop continues"
DEEDS = {
    "cancel_all": ("cancelled", CANCELLED),
    "cancel_all_imported_by_name": ("cancelled", CANCELLED),
    "cancel_as_asyncio_run_does": ("cancelled", CANCELLED),
    "cancel_from_a_thread": ("cancelled", CANCELLED),
    "cancel_others_and_wait": ("completed", None),
    "cancel_own_loop_in_a_thread": ("completed", None),
    "shut_executor": ("completed", "The bot called loop.shutdown_default_executor(); nothing was shut down"),
    "shut_executor_inside": ("completed", None),
    "shut_own_default_executor": ("completed", NEW_EXECUTOR),
    "shut_generators": ("completed", "The bot called loop.shutdown_asyncgens(); nothing was shut down"),
    "stop_loop": ("completed", STOPPED),
    "stop_loop_from_a_thread": ("completed", STOPPED),
    "close_loop": ("failed", "bot in bot.py failed: RuntimeError: Cannot close a running event loop at "),
    "run_until_complete": ("failed", "bot in bot.py failed: RuntimeError: "),
    "unset_loop": ("completed", None),
    "replace_handler": ("completed", STOPPED),
    "exit_in_task": ("completed", "A background task called sys.exit(); only that task has ended"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_a_bot_that_ends_what_it_finds_on_the_loop_ends_its_own_session_only(launcher: Launcher, deed: str) -> None:
    outcome, line = DEEDS[deed]
    before = launcher.log().count(line or "")
    with Bystanders(launcher) as others:
        response = launcher.post({"do": deed}, x_daily_session_id=f"s-{deed}")
        assert response.headers["x-pipecat-session-outcome"] == outcome
        if line is not None:
            launcher.wait_for_log(line, times=before + 1)
    assert others.lost == 0
    assert launcher.http.get("/livez").status_code == launcher.http.get("/readyz").status_code == 200
    # The next call has all that it needs.
    assert launcher.post({"do": "shut_own_default_executor"}).headers["x-pipecat-session-outcome"] == "completed"


def test_a_call_whose_bot_cancels_every_task_is_closed_properly(launcher: Launcher) -> None:
    with Bystanders(launcher) as others:
        socket = opened(launcher.websocket_url("/ws-client"))
        socket.send("cancel_all")
        assert close_code(socket) == 4009
    assert others.lost == 0


def test_what_setup_cancels_is_the_bots_own(launcher: Launcher) -> None:
    with Launcher("shared_loop", IN_SETUP="cancel_others_and_wait", wait=False) as other:
        # Two tasks are its own, and so it fails; the launcher lives to say that.
        assert other.wait() == 21
        assert other.lines("setup_failed: setup() of bot.py raised AssertionError")


@in_one_process
def test_a_teardown_that_cancels_every_task_lets_the_launcher_stop_properly() -> None:
    with Launcher("shared_loop", IN_TEARDOWN="1", DRAIN_NOTICE="0") as launcher:
        assert launcher.stop() == 0
        assert launcher.lines("Stopped")
        assert launcher.lines("teardown() failed: CancelledError") or launcher.lines("kept was cancelled: True")
