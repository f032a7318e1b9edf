"""``pipecatcloud.session.Session(…).start()``, as an application that starts its bots from Python does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.compat.clients.clients import start_session
from tests.process.gateway.conftest import sessions
from tests.support.callers import arguments
from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher


def test_a_session_gets_its_data(gateway: Launcher, home: Path) -> None:
    result = start_session(gateway, home=home, data={"name": "Ada"})["result"]
    assert arguments(gateway, result["sessionId"])["args"]["body"] == {"name": "Ada"}
    assert [session["sessionId"] for session in sessions(gateway)] == [result["sessionId"]]


def test_a_session_without_parameters_gets_an_empty_body(gateway: Launcher, home: Path) -> None:
    result = start_session(gateway, home=home)["result"]
    assert arguments(gateway, result["sessionId"])["args"]["body"] == {}


def test_bot_and_caller_get_the_same_daily_room(gateway: Launcher, daily: DailyApi, home: Path) -> None:
    asked: dict[str, Any] = {
        "data": {"name": "Ada"},
        "use_daily": True,
        "daily_room_properties": {"max_participants": 2},
    }
    result = start_session(gateway, home=home, **asked)["result"]
    given = arguments(gateway, result["sessionId"])["args"]
    assert (given["room_url"], given["token"]) == (result["dailyRoom"], result["dailyToken"])
    assert given["body"] == {"name": "Ada"}
    assert daily.rooms[result["dailyRoom"].rpartition("/")[2]]["max_participants"] == 2


def test_a_wrong_key_is_told_by_its_code(gateway: Launcher, home: Path) -> None:
    error = start_session(gateway, key="pk_other", home=home)
    assert error["code"] == "PCC-1002"
    assert "public API key" in error["text"]
    assert sessions(gateway) == []


def test_without_a_place_the_code_is_429_and_the_text_names_the_error(
    gateway: Launcher, running: str, home: Path
) -> None:
    error = start_session(gateway, home=home)
    assert error["code"] == "429"
    assert "PCC-AGENT-AT-CAPACITY" in error["text"]
    assert [session["sessionId"] for session in sessions(gateway)] == [running]


def test_another_agent_is_404(gateway: Launcher, home: Path) -> None:
    error = start_session(gateway, agent="their-agent", home=home)
    assert error == {"code": "404", "text": "404 - There is no agent of this name."}


def test_properties_that_daily_does_not_take_start_nothing(gateway: Launcher, home: Path) -> None:
    error = start_session(gateway, home=home, use_daily=True, daily_room_properties={"exp": "soon"})
    assert error["code"] == "400"
    assert "exp" in error["text"]
    assert sessions(gateway) == []
