"""The transport of a ``POST /start`` that names none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipecat_base.bot.served_transports import DEFAULT_TRANSPORT
from pipecat_base.config.settings import START_TRANSPORTS
from tests.process.gateway.conftest import sessions
from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher, run
from tests.support.offers import NO_ICE

SCAFFOLD = """
from pipecat.runner.types import RunnerArguments
from pipecat.runner.utils import create_transport
from pipecat.transports.base_transport import TransportParams

async def bot(runner_args: RunnerArguments):
    params = {TRANSPORTS}
    await create_transport(runner_args, params)
"""


def scaffold(*transports: str) -> str:
    """The bot of a project that `pipecat init` writes for these transports."""
    entries = "".join(f'"{name}": lambda: TransportParams(), ' for name in transports)
    return SCAFFOLD.replace("{TRANSPORTS}", f"{{{entries}}}")


# As in the server for outbound calls that `pipecat init` writes: it has made the room itself.
BY_HAND = """
from pipecat.runner.types import RunnerArguments

class DailyTransport: ...
class DailyParams: ...

async def bot(runner_args: RunnerArguments):
    DailyTransport()
"""

WITH_ARGUMENTS = """
class DailyRunnerArguments: ...
class SmallWebRTCRunnerArguments: ...

async def bot(args):
    if isinstance(args, DailyRunnerArguments): ...
    match args:
        case SmallWebRTCRunnerArguments(): ...
"""


def launch(**variables: Any) -> Launcher:
    found: dict[str, Any] = {**NO_ICE, "PIPECAT_GATEWAY": "1", **variables}
    return Launcher("gateway", **found)


@pytest.mark.parametrize("name", ["websocket", "twilio", "telnyx", "plivo", "exotel", "Twilio", " twilio "])
def test_a_start_without_a_transport_is_for_the_one_that_is_set(name: str) -> None:
    with launch(PIPECAT_DEFAULT_TRANSPORT=name) as launcher:
        answer = launcher.http.post("/start", json={"enableDefaultIceServers": True})
        assert "wsUrl" in answer.json()
        assert launcher.http.post("/start", json={"transport": "webrtc"}).json().keys() == {"sessionId"}
        assert "wsUrl" not in launcher.http.post("/v1/public/agent/start", json={}).json()


def test_a_daily_default_starts_what_the_servers_of_pipecat_init_ask_for(daily: DailyApi) -> None:
    keys: dict[str, Any] = {"DAILY_API_KEY": daily.key, "DAILY_API_URL": daily.url}
    with launch(PIPECAT_DEFAULT_TRANSPORT="daily", **keys) as launcher:
        request = {"createDailyRoom": False, "body": {"room_url": "https://made.example/room", "token": "t"}}
        session_id = launcher.http.post("/start", json=request).json()["sessionId"]
        assert launcher.arguments(session_id)["body"] == request["body"]
        (session,) = sessions(launcher)
        assert (session["state"], session["transport"]) == ("running", "plain")
        content = launcher.http.post("/start", json={"createDailyRoom": True}).json()
        assert launcher.arguments(content["sessionId"])["room_url"] == content["dailyRoom"]


@pytest.mark.parametrize("option", ["-t", "--transport"])
def test_dev_takes_it_as_an_option_over_the_variable(option: str) -> None:
    command = ("dev", option, "twilio")
    with Launcher("gateway", command=command, PIPECAT_DEFAULT_TRANSPORT="webrtc") as launcher:
        assert "wsUrl" in launcher.http.post("/start").json()


def test_dev_takes_it_from_the_env_file(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    (tmp_path / ".env").write_text("PIPECAT_DEFAULT_TRANSPORT=plivo\n")
    with Launcher(tmp_path, command=("dev",)) as launcher:
        assert "wsUrl" in launcher.http.post("/start").json()


@pytest.mark.parametrize("name", ["eval", "vonage", "pigeon", "plain"])
def test_another_name_is_an_error_that_lists_the_right_ones(tmp_path: Path, name: str) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    choices = ", ".join(START_TRANSPORTS)
    for ended, shown in (
        (run("dev", "-t", name, cwd=tmp_path), "--transport"),
        (run(cwd=tmp_path, PIPECAT_DEFAULT_TRANSPORT=name), "PIPECAT_DEFAULT_TRANSPORT"),
    ):
        assert ended.returncode == 24
        assert f'{shown}: "{name}" is not one of {choices}' in ended.stderr


def warnings_of(folder: Path, source: str, **variables: str) -> Iterator[str]:
    (folder / "bot.py").write_text(source)
    checked = run("check", "--json", cwd=folder, **variables)
    found = json.loads(checked.stdout)
    assert found["ok"], found
    return (line for line in found["warnings"] if "names no transport" in line)


@pytest.mark.parametrize(
    ("source", "default", "served"),
    [
        (scaffold("daily"), None, "daily"),
        (scaffold("twilio"), None, "twilio"),
        (scaffold("daily", "twilio", "eval"), None, "daily, twilio"),
        (scaffold("webrtc"), "daily", "webrtc"),
        (BY_HAND, None, "daily"),
        ("import helpers\nasync def bot(args): ...\n", None, "livekit"),
    ],
)
def test_a_bot_that_cannot_serve_the_default_is_a_warning(
    tmp_path: Path, source: str, default: str | None, served: str
) -> None:
    (tmp_path / "helpers.py").write_text("PARAMS = {'livekit': None}\n")
    variables = {} if default is None else {"PIPECAT_DEFAULT_TRANSPORT": default}
    (line,) = warnings_of(tmp_path, source, **variables)
    first = served.partition(",")[0]
    assert line == (
        f"bot.py serves {served}, but a POST /start that names no transport means {default or DEFAULT_TRANSPORT}; set "
        f"PIPECAT_DEFAULT_TRANSPORT={first} (pipecat-base dev -t {first})"
    )
    variables["PIPECAT_DEFAULT_TRANSPORT"] = first
    if first not in ("livekit",):
        assert not list(warnings_of(tmp_path, source, **variables))


@pytest.mark.parametrize(
    "source",
    [
        scaffold("daily", "webrtc"),
        WITH_ARGUMENTS,
        scaffold("eval"),
        "async def bot(args): ...\n",
        "class WebSocketDisconnect: ...\nasync def bot(args):\n    raise WebSocketDisconnect\n",
        "PRICES = {'daily': 3, 'weekly': 20}\ndaily_report = PRICES['daily']\nasync def bot(args): ...\n",
        "class DailyParams: ...\nTRANSPORTS = {'webrtc': DailyParams}\nasync def bot(args): ...\n",
    ],
)
def test_other_bots_are_none(tmp_path: Path, source: str) -> None:
    assert not list(warnings_of(tmp_path, source))


def test_a_default_that_lacks_its_settings_is_a_warning(tmp_path: Path) -> None:
    (line,) = warnings_of(tmp_path, scaffold("livekit"), PIPECAT_DEFAULT_TRANSPORT="livekit")
    assert "means livekit, which cannot be used here: " in line


@pytest.mark.parametrize("options", [[], ["--reload"]], ids=str)
def test_dev_warns_too_and_a_server_does_not(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "bot.py").write_text(scaffold("daily"))
    with Launcher(tmp_path, command=("dev", *options)) as launcher:
        launcher.wait_for_log("bot.py serves daily, but a POST /start that names no transport means webrtc")
    with Launcher(tmp_path, command=("dev", *options, "-t", "daily")) as launcher:
        assert not launcher.lines("names no transport")
    with Launcher(tmp_path, PIPECAT_GATEWAY="1") as launcher:
        assert not launcher.lines("names no transport")
