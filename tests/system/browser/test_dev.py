"""The page of ``pipecat-base dev`` while code changes: on a small and a large screen, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from tests.support.launchers import PATIENCE, PYTHON, ROOT, Launcher, environment
from tests.system.browser.browser import drive, url

DEV = ("dev", "--reload")
SCREENS = [{"width": width, "scheme": scheme} for width in (360, 1440) for scheme in ("light", "dark")]
LEGIBLE = 4.5
"""The contrast that WCAG 2.2 (1.4.3) asks of text."""
GOOD = "async def bot(args): ...\n"
BROKEN = """
import os


def connect():
    return os.environ["A_KEY_OF_A_SERVICE_WITH_A_RATHER_LONG_NAME"]


connect()


async def bot(args): ...
"""
SAID = [
    "bot.py:6 reads the environment variable A_KEY_OF_A_SERVICE_WITH_A_RATHER_LONG_NAME, which is not set.",
    "Set it: in .env beside the bot (pipecat-base dev), with docker run -e, or where the bot is deployed.",
    "bot.py:9",
    "connect()",
    "bot.py:6 in connect",
    'return os.environ["A_KEY_OF_A_SERVICE_WITH_A_RATHER_LONG_NAME"]',
    "bot_raised",
]
"""Each of these once, in this order."""

screens = pytest.mark.parametrize("screen", SCREENS, ids=lambda screen: f"{screen['width']}-{screen['scheme']}")


def dev(folder: Path, *, code: str | None = None, **variables: Any) -> Launcher:
    if code is not None:
        (folder / "bot.py").write_text(code)
    return Launcher(folder, command=DEV, PIPECAT_ICE_SERVERS="[]", **variables)


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def is_fine(look: dict[str, Any]) -> bool:
    return bool(look["overflow"] == 0 and look["faintest"][0] >= LEGIBLE)


@screens
def test_an_edit_that_breaks_the_bot_is_told_as_the_terminal_tells_it_until_it_is_fixed(
    tmp_path: Path, screen: dict[str, Any]
) -> None:
    with dev(tmp_path, code=GOOD) as launcher:
        seen = drive("edit", url=url(launcher), file=str(tmp_path / "bot.py"), broken=BROKEN, mended=GOOD, **screen)
    assert lines(seen["told"]) == [*SAID[:-1], "bot_raised · New calls still run the code before it."]
    assert seen["pills"] == ["Ready, with old code", "Ready"]
    assert seen["boxes"] == 0
    assert is_fine(seen["look"]), seen["look"]


def test_a_server_that_comes_back_broken_says_why_and_no_box_stays(tmp_path: Path) -> None:
    with dev(tmp_path, code=GOOD) as launcher:
        seen = drive(
            "restart",
            url=url(launcher),
            pid=launcher.process.pid,
            command=[PYTHON, "-m", "pipecat_base", *DEV],
            environment=environment(PORT=str(launcher.port)),
            folder=str(tmp_path),
            file=str(tmp_path / "bot.py"),
            broken=BROKEN,
            mended=GOOD,
        )
    assert [lines(box) for box in seen["told"]] == [SAID]
    assert seen["boxes"] == 0


@screens
def test_a_page_that_is_opened_while_the_bot_is_broken_says_why_and_goes_on(
    tmp_path: Path, screen: dict[str, Any]
) -> None:
    (tmp_path / "bot.py").write_text(BROKEN)
    with Launcher(tmp_path, command=DEV, wait=False) as launcher:
        launcher.wait_for_log("Waiting for a change")
        seen = drive(
            "broken",
            url=url(launcher),
            file=str(tmp_path / "bot.py"),
            worse="async def bot(<script>:\n",
            worsened="async def bot(<script>:",
            mended=GOOD,
            **screen,
        )
    told = lines(seen["told"])
    assert told[:2] == SAID[:2]
    assert told[2:4] == ["bot.py:9: connect()", ": ".join(SAID[4:6])]
    assert is_fine(seen["look"]), seen["look"]


@screens
def test_what_the_bot_raised_is_told_once_with_its_own_lines(
    tmp_path: Path, microphone: str, screen: dict[str, Any]
) -> None:
    (tmp_path / "helpers.py").write_text(
        "def name(body):\n    return body['a_name_that_nobody_has_given_it'].title()\n"
    )
    with dev(tmp_path, code="import helpers\n\n\nasync def bot(args):\n    helpers.name(args.body)\n") as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone, **screen)
    assert seen["state"] == "The bot failed"
    assert lines(seen["words"]) == [
        "KeyError: 'a_name_that_nobody_has_given_it'",
        "bot.py:5 in bot",
        "helpers.name(args.body)",
        "helpers.py:2 in name",
        "return body['a_name_that_nobody_has_given_it'].title()",
    ]
    assert is_fine(seen["look"]), seen["look"]


@screens
def test_a_session_that_keeps_old_code_is_marked_and_can_be_stopped(tmp_path: Path, screen: dict[str, Any]) -> None:
    with (
        dev(tmp_path, code=ECHO) as launcher,
        connect(launcher.websocket_url("/ws-client")) as client,
    ):
        client.send("there?")
        assert client.recv(timeout=PATIENCE) == "there?"
        seen = drive("old", url=url(launcher), file=str(tmp_path / "bot.py"), changed=f"{ECHO}\n# changed\n", **screen)
        launcher.wait_for_log("The last session of bot in bot.py that ran the old code has ended")
    assert "old code" not in seen["before"]
    assert "old code" in lines(seen["during"])
    assert "still runs for one session. New calls get the new code." in seen["during"]
    assert is_fine(seen["look"]), seen["look"]


ECHO = """
async def bot(args):
    async for message in args.websocket.iter_text():
        await args.websocket.send_text(message)
"""


@screens
def test_what_one_can_do_comes_first_and_figures_move_nothing(screen: dict[str, Any], microphone: str) -> None:
    with Launcher(ROOT / "examples" / "echo", command=DEV, PIPECAT_ICE_SERVERS="[]") as launcher:
        seen = drive("idle", url=url(launcher), microphone=microphone, **screen)
        assert f"{url(launcher)}/telephony/twilio" in seen["ways"]
    assert lines(seen["ways"])[:2] == ["Talk on this page", "Press Connect and speak."]
    assert not seen["listed"]
    assert "ESP32" not in seen["ways"]
    assert "ESP32" in seen["features"]
    assert seen["before"] == seen["during"]
    grey = "grey: not said yet"
    assert seen["lines"] == [[grey, "", "One two."], [grey, "One", " two."], ["", "One two.", ""]]
    assert all(map(is_fine, seen["looks"])), seen["looks"]


def smallest_bot() -> str:
    """The README's."""
    text = (ROOT / "README.md").read_text()
    code = text.partition("The smallest bot is one function.")[2].partition("```python\n")[2].partition("```")[0]
    assert "async def bot" in code
    return code


def test_the_smallest_bot_works_on_the_page(tmp_path: Path, microphone: str) -> None:
    with dev(tmp_path, code=smallest_bot()) as launcher:
        seen = drive("watch", url=url(launcher), microphone=microphone, body='{"name": "Ada"}')
        launcher.wait_for_log(" for Ada")
        nameless = drive("watch", url=url(launcher), microphone=microphone)
        launcher.wait_for_log(" for nobody")
    assert {seen["state"], nameless["state"]} == {"The bot ended the call"}
    assert "bot() has returned" in nameless["words"]


def test_a_session_that_a_reload_ended_before_its_call_is_started_again(tmp_path: Path, microphone: str) -> None:
    code = (ROOT / "examples" / "echo" / "bot.py").read_text()
    with dev(tmp_path, code=code) as launcher:
        file = str(tmp_path / "bot.py")
        seen = drive("reload", url=url(launcher), microphone=microphone, file=file, changed=f"{code}\n# changed\n")
    assert (seen["starts"], seen["boxes"]) == (2, 0)
