"""What a session leaves behind is given back, once no other one runs; an import waits for few searches for garbage."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import psutil
import pytest

from tests.support.launchers import Launcher, in_one_process, until

RELEASED = "Released session memory: collected "
MEGABYTES = 100
BOT = f"""
import asyncio
import os


async def bot(args):
    while "until" in args.body:
        await asyncio.sleep(0.05)
        if os.path.exists(args.body["until"]):
            return
    if args.body.get("wait"):
        await asyncio.sleep(args.body["wait"])
        return
    # As a pipeline does: what is only reachable from itself, in small pieces.
    pieces = [bytearray(1000) for _ in range({MEGABYTES} * 1000)]
    pieces.append(pieces)
"""

HOLDS = f"""
import asyncio
import os


async def bot(args):
    pieces = [bytearray(1000) for _ in range({MEGABYTES} * 1000)]
    pieces.append(pieces)
    print("holding")
    while not os.path.exists(args.body["until"]):
        await asyncio.sleep(0.05)
"""
TELLS_THRESHOLD = "\n\nasync def bot(args):\n    print('calling', gc.get_threshold()[0])\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(BOT)
    return tmp_path


def resident(launcher: Launcher) -> float:
    return float(psutil.Process(launcher.process.pid).memory_info().rss / 1e6)


@in_one_process
def test_memory_is_released_before_the_answer(folder: Path) -> None:
    with Launcher(folder) as launcher:
        launcher.post({"wait": 0.01})
        before = resident(launcher)
        launcher.post({}, x_daily_session_id="large")
        assert resident(launcher) < before + MEGABYTES / 2
        (line,) = launcher.lines(RELEASED)[1:]
        assert "| DEBUG " in line
        assert "| large - " in line
        assert "malloc_trim returned memory: True" in line
        launcher.wait_for_log("large - POST /bot 200")  # it is written when the caller has its answer
        log = launcher.log()
        assert log.index("large - Session ended") < log.rindex(RELEASED) < log.index("large - POST /bot 200")


@in_one_process
def test_it_can_be_turned_off(folder: Path) -> None:
    with Launcher(folder, PCC_RELEASE_SESSION_MEMORY="False") as launcher:
        launcher.post({"wait": 0.01})
        before = resident(launcher)
        launcher.post({})
        assert resident(launcher) > before + MEGABYTES / 2
        assert not launcher.lines(RELEASED)


@in_one_process
def test_what_a_session_leaves_to_later_is_not_kept_for_good(tmp_path: Path) -> None:
    """A callback that outlives its session by a moment holds on to what is garbage afterwards."""
    (tmp_path / "bot.py").write_text(BOT + "    asyncio.get_running_loop().call_later(0.3, len, pieces)\n")
    with Launcher(tmp_path) as launcher:
        launcher.post({"wait": 0.01})
        before = resident(launcher)
        for _ in range(3):
            launcher.post({})
            launcher.post({"wait": 0.5})
            assert resident(launcher) < before + MEGABYTES / 2


@in_one_process
def test_what_was_there_before_the_first_session_is_not_looked_at(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import gc\n\n\nasync def bot(args):\n    print('frozen', gc.get_freeze_count())\n"
    )
    for release, is_frozen in (("true", True), ("false", False)):
        with Launcher(tmp_path, PCC_RELEASE_SESSION_MEMORY=release) as launcher:
            launcher.post({})
            (line,) = launcher.lines("frozen ")
            assert (int(line.split()[1]) > 1000) is is_frozen


KEEPS = """
import gc
import sys


def readyz():
    # Not named in full: a bot that speaks of it has it imported before this.
    modules = [module for name, module in list(sys.modules.items()) if name.endswith("{module}")]
    types = [getattr(module, "{type_}", None) for module in modules]
    looked_at = {{id(one) for one in gc.get_objects()}}
    print("kept", any(type_ is not None and id(type_) not in looked_at for type_ in types))
    return True


async def bot(args): ...
"""


@in_one_process
@pytest.mark.parametrize(
    ("module", "type_", "rest"),
    [(".runner.types", "RunnerArguments", ""), ("rtc.rtcpeerconnection", "RTCPeerConnection", "# SmallWebRTC")],
)
def test_what_the_first_caller_would_wait_for_is_imported_before_any_call(
    tmp_path: Path, module: str, type_: str, rest: str
) -> None:
    """And no later search for garbage looks at it."""
    (tmp_path / "bot.py").write_text(f"{KEEPS.format(module=module, type_=type_)}\n\n{rest}\n")

    def is_kept() -> bool:
        with Launcher(tmp_path) as launcher, contextlib.suppress(AssertionError):
            return bool(until(lambda: probe(launcher) == ["kept True"], "the first caller's modules", timeout=5))
        return False

    def probe(launcher: Launcher) -> list[str]:
        launcher.http.get("/readyz")
        return launcher.lines("kept ")[-1:]

    # A start may keep nothing of it: the collector's objects are not kept while it runs in another thread.
    assert any(is_kept() for _ in range(3))


@in_one_process
def test_what_a_session_holds_while_imports_go_on_is_released(tmp_path: Path) -> None:
    """A call that comes as soon as the launcher is ready, to a bot whose next one may need WebRTC's modules."""
    (tmp_path / "bot.py").write_text(f"{HOLDS}\n\n# SmallWebRTC\n")
    over = tmp_path / "over"
    with Launcher(tmp_path, PCC_LOG_FEATURES_SUMMARY="true") as launcher:
        calling = threading.Thread(target=launcher.post, args=({"until": str(over)},))
        calling.start()
        launcher.wait_for_log("holding")
        launcher.wait_for_log("NLTK Data")  # the last line of the summary, for which more is imported
        during = resident(launcher)
        over.touch()
        calling.join()
        assert resident(launcher) < during - MEGABYTES / 2


@in_one_process
def test_no_session_is_halted_for_it(folder: Path) -> None:
    over = folder / "over"
    with Launcher(folder) as launcher:
        other = threading.Thread(target=launcher.post, args=({"until": str(over)},))
        other.start()
        launcher.wait_for_log("Session started")
        launcher.post({"wait": 0.01})
        assert not launcher.lines(RELEASED)
        over.touch()
        other.join()
        launcher.wait_for_log(RELEASED)
        assert len(launcher.lines(RELEASED)) == 1


@pytest.mark.parametrize(
    ("usual", "importing", "calling"), [("700", 20_011, 700), ("30_000", 30_000, 30_000), ("0", 0, 0)]
)
def test_garbage_is_looked_for_seldom_while_the_bot_is_imported(
    tmp_path: Path, usual: str, importing: int, calling: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import gc\n\ngc.set_threshold({usual})\n")
    (tmp_path / "bot.py").write_text(f"import gc\n\nprint('importing', gc.get_threshold()[0])\n{TELLS_THRESHOLD}")
    with Launcher(tmp_path, PYTHONPATH=str(tmp_path)) as launcher:
        launcher.post({})
        assert launcher.lines("importing ") == [f"importing {importing}"]
        assert launcher.lines("calling ") == [f"calling {calling}"]


def test_the_threshold_that_a_bot_sets_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(f"import gc\n\ngc.set_threshold(1234)\n{TELLS_THRESHOLD}")
    with Launcher(tmp_path) as launcher:
        launcher.post({})
        assert launcher.lines("calling ") == ["calling 1234"]
