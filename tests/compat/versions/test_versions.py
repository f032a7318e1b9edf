"""Old and new pipecat-ai and pipecatcloud, each really installed in an environment of its own, with this project.

A combination whose Python is not installed is skipped and says so; the Python that runs this is always found.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support import phones
from tests.support.browser_peer import RATE, Browser
from tests.support.callers import encode
from tests.support.graph_api import VARIABLES, Caller, Graph
from tests.support.launchers import ROOT, Launcher
from tests.support.phones import call
from tests.support.tones import pitch

UV = Path(os.environ.get("VIRTUAL_ENV", ROOT / ".venv")) / "bin" / "uv"


@dataclass(frozen=True)
class Combination:
    python: str
    pipecat: str | None
    cloud: str | None

    def __str__(self) -> str:
        return f"pipecat-{self.pipecat or 'none'}-cloud-{self.cloud or 'none'}-py{self.python}"

    @property
    def has_webrtc(self) -> bool:
        """The aiortc of 0.0.78 has no wheel for any Python that is supported."""
        return self.pipecat not in (None, "0.0.78")

    @property
    def has_body(self) -> bool:
        """Whether the arguments have one by themselves."""
        return self.pipecat not in ("0.0.78", "0.0.90") and self.cloud != "0.1.2"

    def requirements(self) -> list[str]:
        wanted = [str(ROOT)]
        if self.pipecat:
            wanted.append(f"pipecat-ai[{'webrtc,' if self.has_webrtc else ''}websocket]=={self.pipecat}")
        if self.cloud:
            wanted.append(f"pipecatcloud=={self.cloud}")
        return wanted


COMBINATIONS = [
    Combination("3.11", "0.0.78", None),
    Combination("3.11", "0.0.78", "0.1.2"),
    Combination("3.11", "0.0.78", "0.4.4"),
    Combination("3.12", "0.0.78", "1.4.0"),
    Combination("3.12", "0.0.90", None),
    Combination("3.11", "0.0.90", "1.2.0"),
    Combination("3.11", "0.0.91", None),
    Combination("3.12", "0.0.91", "0.1.2"),
    Combination("3.11", "0.0.91", "0.4.4"),
    Combination("3.11", "0.0.104", "0.4.4"),
    Combination("3.12", "1.0.0", None),
    Combination("3.12", "1.0.0", "1.2.0"),
    Combination("3.12", "1.3.0", "1.3.0"),
    Combination("3.12", "1.14.0", None),
    Combination("3.12", "1.14.0", "1.3.0"),
    Combination("3.13", "1.14.0", "1.4.0"),
    Combination("3.12", None, "0.4.4"),
    Combination("3.12", None, "1.4.0"),
    Combination("3.12", None, None),
]


@pytest.fixture(scope="module", params=COMBINATIONS, ids=str)
def combination(request: pytest.FixtureRequest) -> Combination:
    chosen: Combination = request.param
    return chosen


@pytest.fixture(scope="module")
def python(combination: Combination, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The interpreter of a fresh environment with the combination in it."""
    finder = ["sh", str(ROOT / "scripts" / "find-python.sh"), combination.python]
    base = subprocess.run(finder, capture_output=True, text=True, check=False).stdout.strip()
    if not base:
        assert combination.python != "{}.{}".format(*sys.version_info), "find-python.sh does not find this very Python"
        pytest.skip(f"this machine lacks Python {combination.python}")
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([str(UV), "venv", "--quiet", "--python", base, str(folder)], check=True)
    interpreter = str(folder / "bin" / "python")
    install = [str(UV), "pip", "install", "--quiet", "--python", interpreter, *combination.requirements()]
    subprocess.run(install, check=True)
    return interpreter


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a WebSocket's flow is."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "flow.json").write_text("a flow")
    return folder


@pytest.fixture(scope="module")
def launcher(python: str, files: Path) -> Iterator[Launcher]:
    with Launcher("dispatch", python=python, PCC_SESSION_FILES_DIR=str(files)) as running:
        yield running


def expected(combination: Combination, runner: list[str], cloud: list[str]) -> list[str]:
    """pipecatcloud before 1.0 has types of its own where pipecat is missing, from 1.0 it has none; 0.1.2 always."""
    has_cloud_types = combination.cloud is not None and (combination.pipecat or combination.cloud < "1")
    has_runner_types = combination.pipecat is not None and combination.cloud != "0.1.2"
    return (runner if has_runner_types else []) + (cloud if has_cloud_types else [])


def last(launcher: Launcher) -> dict[str, Any]:
    return launcher.said()[-1]


def test_plain_sessions(launcher: Launcher, combination: Combination) -> None:
    envelope = {"body": {"a": 1}, "flow_config": "a flow"}
    headers = {"x-daily-session-id": "plain", "x-pcc-start-envelope": "1"}
    response = launcher.http.post("/bot", json=envelope, headers=headers)
    assert response.status_code == 200, launcher.log()
    said = last(launcher)
    assert said["satisfied"] == expected(
        combination, ["RunnerArguments"], ["PipecatSessionArguments", "SessionArguments"]
    )
    assert (said["session_id"], said["body"], said["file_storage"]) == ("plain", {"a": 1}, None)
    assert said["flow_config"] == "a flow"
    assert said["handle"] == [False, False]


@pytest.mark.parametrize("token", ["t", None])
def test_daily_sessions(launcher: Launcher, combination: Combination, token: str | None) -> None:
    headers = {"x-daily-session-id": "daily", "x-daily-room-url": "https://d/r"}
    headers |= {"x-daily-room-token": token} if token else {}
    assert launcher.http.post("/bot", json={"b": 2}, headers=headers).status_code == 200, launcher.log()
    said = last(launcher)
    assert said["satisfied"] == expected(
        combination, ["RunnerArguments", "DailyRunnerArguments"], ["DailySessionArguments", "SessionArguments"]
    )
    assert (said["room"], said["body"]) == (["https://d/r", token], {"b": 2})
    assert said["flow_config"] is None


@pytest.mark.parametrize(("path", "transport_type"), [("/ws", None), ("/ws-client", "websocket")])
def test_websocket_sessions(
    launcher: Launcher, combination: Combination, path: str, transport_type: str | None
) -> None:
    url = f"{launcher.websocket_url(path)}?body={encode({'c': 3})}"
    headers = {"x-pcc-flow-config-file": "flow.json"}
    with connect(url, proxy=None, additional_headers=headers) as websocket, contextlib.suppress(ConnectionClosed):
        websocket.recv(timeout=10)
    said = last(launcher)
    assert said["satisfied"] == expected(
        combination,
        ["RunnerArguments", "WebSocketRunnerArguments"],
        ["WebSocketSessionArguments", "SessionArguments"],
    )
    assert (said["transport_type"], said["body"], said["flow_config"]) == (transport_type, {"c": 3}, "a flow")


def test_every_line_still_carries_its_session(launcher: Launcher) -> None:
    """Importing pipecatcloud replaces every log sink; ours must be there again."""
    launcher.http.post("/bot", headers={"x-daily-session-id": "logged"})
    launcher.wait_for_log("| logged - Session ended: completed")
    assert len([line for line in launcher.log().splitlines() if "| logged - Session started" in line]) == 1


def test_a_sink_of_the_bots_own_outlives_the_import_of_pipecatcloud(python: str, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "from loguru import logger\nlogger.add('mine.log')\n\n\nasync def bot(args):\n"
        "    # This mention of pipecatcloud makes the first session import it.\n"
        "    logger.info('a line of the session')\n"
    )
    with Launcher(tmp_path, python=python) as launcher:
        assert launcher.http.post("/bot").status_code == 200
        assert "a line of the session" in (tmp_path / "mine.log").read_text()
        assert launcher.log().count("a line of the session") == 1


def test_a_phone_call_through_a_pipeline(python: str, combination: Combination) -> None:
    if combination.pipecat in (None, "0.0.78"):
        return  # no pipelines without pipecat, and the oldest has the example's transport elsewhere
    with Launcher(ROOT / "examples" / "echo", python=python) as echo:
        heard = call(echo, phones.twilio(), 440)
        assert len(heard) > 6000, echo.log()
        assert pitch(heard) == pytest.approx(440, abs=5)
        if combination.pipecat not in ("0.0.78", "0.0.90", "0.0.91"):  # too old for the observers
            echo.wait_for_log("[pcc-observability] Startup timing | ")


def test_a_browser_call_through_a_pipeline(python: str, combination: Combination) -> None:
    if not combination.has_webrtc:
        return

    async def scenario() -> None:
        async with Browser(f"http://127.0.0.1:{echo.port}", 700) as browser:
            assert (await browser.offer()).status_code == 200
            assert pitch(await browser.hear(0.5), RATE) == pytest.approx(700, abs=5)

    with Launcher(ROOT / "examples" / "echo", python=python, PIPECAT_ICE_SERVERS="[]") as echo:
        asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_whatsapp_call_through_a_pipeline(python: str, combination: Combination) -> None:
    if not combination.has_webrtc:
        return

    async def scenario() -> None:
        async with Caller(launcher, graph, 700) as caller:
            assert (await caller.call()).status_code == 200
            assert pitch(await caller.hear(0.5), RATE) == pytest.approx(700, abs=5)

    with (
        Graph() as graph,
        Launcher(
            "whatsapp", python=python, wait=True, **graph.variables, PIPECAT_ICE_SERVERS="[]", **VARIABLES
        ) as launcher,
    ):
        asyncio.run(asyncio.wait_for(scenario(), 30))
        assert launcher.said()[0]["body"] == "WhatsAppConnectCall"


def test_a_start_says_what_is_missing_and_what_is_deprecated(launcher: Launcher, combination: Combination) -> None:
    assert bool(launcher.lines("pipecat-ai is not installed: ")) is (combination.pipecat is None)
    deprecated = launcher.lines("is deprecated in this image, as its session arguments have no body of their own")
    assert bool(deprecated) is not combination.has_body
    document = launcher.http.get("/pcc/capabilities").json()["capabilities"]
    assert document["transport.websocket"] == {"available": True}
    assert document["transport.webrtc"]["available"] is combination.has_webrtc
    assert document["transport.moq"]["available"] is False


def test_check_runs(python: str) -> None:
    result = subprocess.run(
        [Path(python).parent / "pipecat-base", "check"],
        cwd=ROOT / "tests" / "bots" / "dispatch",
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "bot in bot.py is fine" in result.stdout
