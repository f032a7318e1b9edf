"""Bots in the forms that pipecat's documentation has: each is checked, and takes a session over its transport."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect

from tests.support import phones
from tests.support.browser_peer import RATE, Browser
from tests.support.callers import dial
from tests.support.daily_api import DailyApi
from tests.support.graph_api import VARIABLES, Caller, Graph, deliver, terminate
from tests.support.launchers import BOTS, Launcher, run
from tests.support.offers import NO_ICE, play
from tests.support.tones import pitch

pytestmark = pytest.mark.needs_newest_packages

FOLDER = BOTS / "documented"
SECRETS = (
    "OPENAI_API_KEY CARTESIA_API_KEY DAILY_API_KEY TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN TELNYX_API_KEY PLIVO_AUTH_ID "
    "PLIVO_AUTH_TOKEN"
)
KEYS = {**dict.fromkeys(SECRETS.split(), "stand-in"), "PYTHONPATH": str(FOLDER)}
ROOM = "https://here.invalid/room"
IN_ITS_ROOM = {"x-daily-session-id": "s", "x-daily-room-url": ROOM, "x-daily-room-token": "a-token"}
DIAL_IN = {
    "dialin_settings": {"call_id": "c", "call_domain": "d", "From": "+15550100", "To": "+15550101"},
    "daily_api_key": "stand-in",
    "daily_api_url": "https://here.invalid/v1",
}
DIAL_OUT = {"room_url": ROOM, "token": "a-token", "dialout_settings": [{"phoneNumber": "+15550100"}]}
WARNINGS = {
    "cloud_arguments": "`bot` in bot.py is an ordinary function that returns nothing to await.",
    "runner_app": "/healthz: not served, as pipecat's runner does not run here; write `from pipecatcloud_system import",
}
NOTES = {"krisp": "the bot imports krisp_audio (Krisp's SDK), which the platform mounts at run time: not checked"}


def launch(bot: str, **variables: Any) -> Launcher:
    found: dict[str, Any] = {**KEYS, **NO_ICE, "PIPECAT_LOG_LEVEL": "DEBUG", "DRAIN_NOTICE": "0", **variables}
    return Launcher(FOLDER / bot, **found)


def hears(launcher: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(f"http://127.0.0.1:{launcher.port}") as browser:
            assert (await browser.offer()).status_code == 200
            assert pitch(await browser.hear(0.3), RATE) == pytest.approx(440, abs=5)

    play(scenario)


def rings(launcher: Launcher, provider: phones.Provider) -> None:
    assert pitch(phones.call(launcher, provider, 440, 0.8), 8000) == pytest.approx(440, abs=8)


def ended_well(launcher: Launcher, times: int = 1) -> None:
    launcher.wait_for_log("Session ended: completed", times=times)
    assert not launcher.lines("Session ended: failed")


def joins(launcher: Launcher, body: Any, **headers: str) -> None:
    """The room is not there: joining it is what can be seen."""
    with contextlib.suppress(httpx.ReadTimeout):  # it answers at the session's end
        launcher.http.post("/bot", json=body, headers=headers, timeout=0.5)
    launcher.wait_for_log("Joining <...>")  # the room's address is a secret
    assert not launcher.lines("Session ended: failed")


@pytest.mark.parametrize("bot", sorted(path.parent.name for path in FOLDER.glob("*/bot.py")))
def test_a_documented_bot_has_no_mistake_in_it(bot: str) -> None:
    found = json.loads(run("check", "--json", cwd=FOLDER / bot, **KEYS).stdout)
    assert found["ok"], found
    warnings = [line for line in found["warnings"] if "names no transport" not in line]
    for lines, expected in ((warnings, WARNINGS), (found["notes"], NOTES)):
        assert len(lines) == (bot in expected), lines
        assert all(line.startswith(expected[bot]) for line in lines)


def test_the_first_bot_talks_to_a_browser() -> None:
    with launch("quickstart") as launcher:
        hears(launcher)
        launcher.wait_for_log("The caller is there")
        launcher.wait_for_log("The caller is gone")
        ended_well(launcher)


def test_a_bot_of_one_transport_takes_a_call_of_whatsapps() -> None:
    async def scenario() -> None:
        async with Caller(launcher, graph) as caller:
            assert (await caller.call()).status_code == 200
            assert pitch(await caller.hear(0.3), RATE) == pytest.approx(440, abs=5)
            deliver(launcher, terminate(caller.id))

    with Graph() as graph:
        variables = {**VARIABLES, **graph.variables}
        path = f"{variables.pop('PYTHONPATH')}:{FOLDER}"
        with launch("whatsapp", PYTHONPATH=path, **variables) as launcher:
            play(scenario)
            ended_well(launcher)


def test_a_bot_that_matches_its_arguments_takes_each_kind() -> None:
    with launch("matched") as launcher:
        hears(launcher)
        with connect(launcher.websocket_url("/ws-client"), proxy=None):
            launcher.wait_for_log("StartFrame", times=2)
        ended_well(launcher, times=2)
        joins(launcher, {}, **IN_ITS_ROOM)


def test_a_bot_that_asks_for_instances_tells_which_it_cannot_serve() -> None:
    with launch("lazily", ENV="local") as launcher:
        assert launcher.post({}).status_code == 200
        launcher.wait_for_log("No transport for RunnerArguments")
        joins(launcher, {}, **IN_ITS_ROOM)


def test_a_table_of_transports_has_twilios_and_the_body() -> None:
    with launch("transport_utility") as launcher:
        rings(launcher, phones.twilio())
        launcher.wait_for_log("For somebody")
        ended_well(launcher)


def test_serializers_that_the_bot_makes_serve_each_provider() -> None:
    with launch("carriers") as launcher:
        for provider in phones.PROVIDERS:
            rings(launcher, provider)
            launcher.wait_for_log(f"{provider.name} rings from ")
        launcher.wait_for_log("The call is over", times=len(phones.PROVIDERS))
        ended_well(launcher, times=len(phones.PROVIDERS))


@pytest.mark.parametrize(
    ("bot", "body", "headers", "line"),
    [
        ("dial_in", DIAL_IN, IN_ITS_ROOM, "Rung up by "),
        ("dial_out", DIAL_OUT, {}, "To ring up: "),
        ("forwarded", {"call_sid": "CA0", "sip_endpoint": "sip:a@here.invalid"}, IN_ITS_ROOM, "To forward: "),
        ("smart_turn", {"plan": "basic"}, IN_ITS_ROOM, "with {'plan': 'basic'}"),
    ],
)
def test_a_bot_for_daily_joins_its_room(bot: str, body: Any, headers: dict[str, str], line: str) -> None:
    with launch(bot) as launcher:
        joins(launcher, body, **headers)
        launcher.wait_for_log(line)


def test_a_bot_makes_its_own_room_of_dailys(daily: DailyApi) -> None:
    with launch("own_room", DAILY_API_KEY=daily.key, DAILY_API_URL=daily.url) as launcher:
        joins(launcher, {"caller": "+15550100"})
        assert any("sip" in properties for properties in daily.rooms.values())


def test_routes_reach_into_the_pipeline_of_their_session() -> None:
    with launch("session_api", PIPECAT_GATEWAY="1") as launcher:
        session = launcher.http.post("/v1/public/agent/start", json={}).json()["sessionId"]
        url = f"/v1/public/agent/sessions/{session}"
        launcher.wait_for_log("StartFrame")
        caller = {"user_name": "Ada", "preferences": {"language": "Spanish"}}
        assert launcher.http.post(f"{url}/context", json=caller).json() == {"user_name": "Ada"}
        assert launcher.http.post(f"{url}/speak", json={"message": "Hello, Ada"}).json() == {"queued": True}
        launcher.wait_for_log("Reached by Hello, Ada")
        assert launcher.http.get(f"{url}/status").json() == {"frames": 2}
        assert launcher.http.post(f"{url}/speak", json={}).status_code == 422
        launcher.http.delete(f"/sessions/{session}")
        assert launcher.stop() == 0  # its WorkerRunner() asked for SIGINT


def test_a_bot_speaks_on_its_websocket_itself() -> None:
    with launch("plain_websocket") as launcher:
        with dial(launcher, {"caller_id": "abc"}) as websocket:
            assert websocket.recv(timeout=10) == "Good morning"
            websocket.send("and you?")
            assert websocket.recv(timeout=10) == "AND YOU?"
        ended_well(launcher)
        assert launcher.lines("brought {'caller_id': 'abc'}")


@pytest.mark.parametrize("bot", ["runner_app", "cloud_arguments"])
def test_a_bot_without_a_transport_has_its_id_and_body(bot: str) -> None:
    with launch(bot) as launcher:
        assert launcher.post({"a": 1}, x_daily_session_id="s-1").status_code == 200
        launcher.wait_for_log("s-1 brought {'a': 1}")
        if bot == "cloud_arguments":
            assert launcher.http.post("/bot", json={}, headers=IN_ITS_ROOM).status_code == 200
            launcher.wait_for_log("s brought {} in DailyRunnerArguments")
