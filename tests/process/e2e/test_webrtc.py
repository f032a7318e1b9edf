"""POST and PATCH /api/offer with real aiortc peers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.browser_peer import RATE, Browser
from tests.support.callers import post, probe, settles
from tests.support.launchers import ROOT, Launcher, free_port, measured, until
from tests.support.offers import NO_ICE, SDP, play, wait_for_offer
from tests.support.tones import pitch


def launch(bot: Any = ROOT / "examples" / "echo", **variables: Any) -> Launcher:
    return Launcher(bot, **{**NO_ICE, "DRAIN_NOTICE": "0", **variables})


@pytest.fixture(scope="module")
def caller() -> Iterator[Launcher]:
    with launch() as launcher:
        yield launcher


def url(launcher: Launcher) -> str:
    return f"http://127.0.0.1:{launcher.port}"


CENSUS = """
import asyncio, gc, json


async def bot(args):
    if args.body.get("do") == "count":
        gc.collect()
        aiortc = ("RTCPeerConnection", "RTCRtpTransceiver", "RTCIceTransport", "SmallWebRTCConnection")
        kinds = (*aiortc, "WebRTCSession", "PeerConnection")
        found = [type(thing).__name__ for thing in gc.get_objects()]
        tasks = sum(not task.done() for task in asyncio.all_tasks())
        print(json.dumps({"said": True, "tasks": tasks, **{kind: found.count(kind) for kind in kinds}}), flush=True)
"""

ENDS_WITH_ITS_CLIENT = """
        return
    gone = asyncio.Event()

    @args.webrtc_connection.event_handler("disconnected")
    async def disconnected(connection):
        gone.set()

    await args.webrtc_connection.connect()
    print(json.dumps({"said": True, "listening": True}), flush=True)
    await gone.wait()
"""


def test_a_browser_hears_its_own_tone(caller: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(url(caller)) as browser:
            assert (await browser.offer()).status_code == 200
            assert pitch(await browser.hear(0.5), RATE) == pytest.approx(440, abs=5)

    play(scenario)


def test_ten_calls_at_once_are_not_crossed(caller: Launcher) -> None:
    async def one(frequency: float) -> float:
        async with Browser(url(caller), frequency) as browser:
            assert (await browser.offer()).status_code == 200
            return pitch(await browser.hear(0.5, timeout=30), RATE)

    async def scenario() -> None:
        frequencies = [300 + 100 * n for n in range(10)]
        heard = await asyncio.gather(*map(one, frequencies))
        assert heard == [pytest.approx(frequency, abs=5) for frequency in frequencies]

    play(scenario)


def test_an_offer_that_names_its_connection_renegotiates_it(caller: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(url(caller)) as browser:
            first = (await browser.offer()).json()
            await browser.hear(0.2)
            again = await browser.offer()
            assert (again.status_code, again.json()["pc_id"]) == (200, first["pc_id"])
            assert pitch(await browser.hear(0.3), RATE) == pytest.approx(440, abs=5)

    play(scenario)


@pytest.mark.parametrize("name", ["requestData", "request_data"])
def test_the_clients_data_is_the_body(name: str) -> None:
    with launch("obedient") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher), session="with-data") as browser:
                await browser.offer(**{name: {"n": 1}}, unknown="ignored")

        play(scenario)
        until(launcher.said, "the bot")
        said = launcher.said()[0]
        assert said["type"] in ("SmallWebRTCRunnerArguments", "SmallWebRTCSessionArguments")
        assert (said["args"]["body"], said["args"]["session_id"]) == ({"n": 1}, "with-data")


def with_sections(count: int) -> str:
    """The good offer with so many media sections, each of them complete."""
    head, *sections = SDP.split("m=")
    audio = next(section for section in sections if section.startswith("audio"))
    mids = [line.removeprefix("a=mid:") for line in SDP.splitlines() if line.startswith("a=mid:")]
    more = [f"more{number}" for number in range(count - len(sections))]
    copies = [re.sub(r"a=mid:\S+", f"a=mid:{mid}", audio) for mid in more]
    head = re.sub(r"a=group:BUNDLE .*?(?=\r\n)", f"a=group:BUNDLE {' '.join([*mids, *more])}", head)
    return "m=".join([head, *sections, *copies])


UNUSABLE: list[tuple[Any, str]] = [
    ([], "body"),
    ({}, "sdp"),
    ({"sdp": SDP}, "type"),
    ({"sdp": 5, "type": "offer"}, "sdp"),
    ({"sdp": "", "type": "offer"}, "sdp"),
    ({"sdp": "garbage", "type": "offer"}, "sdp"),
    ({"sdp": SDP.replace("a=mid:0", "a=mid:\ud800"), "type": "offer"}, "sdp"),
    ({"sdp": SDP + "a=x:" + "x" * 300_000, "type": "offer"}, "sdp"),
    ({"sdp": with_sections(33), "type": "offer"}, "sdp"),
    ({"sdp": SDP[: len(SDP) // 2], "type": "offer"}, "sdp"),
    ({"sdp": SDP[:200], "type": "offer"}, "sdp"),
    ({"sdp": "\r\n".join(line for line in SDP.split("\r\n") if "ice-" not in line), "type": "offer"}, "sdp"),
    ({"sdp": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n", "type": "offer"}, "sdp"),
    ({"sdp": SDP, "type": "answer"}, "type"),
    ({"sdp": SDP, "type": "offer", "pc_id": 5}, "pc_id"),
    ({"sdp": SDP, "type": "offer", "restart_pc": "yes"}, "restart_pc"),
]


@pytest.mark.parametrize(("content", "field"), UNUSABLE)
def test_an_unusable_offer_is_a_4xx_with_its_reason(caller: Launcher, content: Any, field: str) -> None:
    response = caller.http.post("/api/offer", content=json.dumps(content))
    assert (response.status_code, response.json()["error"]["field"]) == (400, field)


def test_an_offer_with_the_most_sections_is_answered() -> None:
    with launch("obedient") as launcher:
        content = {"sdp": with_sections(32), "type": "offer", "requestData": {"do": "return"}}
        answer = launcher.http.post("/api/offer", json=content)
        assert answer.status_code == 200, answer.text
        assert answer.json()["sdp"].count("\nm=") == 32


def test_an_offer_for_a_connection_that_we_never_gave_is_404(caller: Launcher) -> None:
    response = caller.http.post("/api/offer", json={"sdp": SDP, "type": "offer", "pc_id": "SmallWebRTCConnection#9"})
    assert (response.status_code, response.json()["error"]["code"]) == (404, "unknown_peer")


LINES = SDP.split("\r\n")
MUTATIONS = st.one_of(
    st.builds(lambda n: "\r\n".join(LINES[:n]), st.integers(0, len(LINES))),
    st.builds(lambda n: "\r\n".join(LINES[:n] + LINES[n + 1 :]), st.integers(0, len(LINES) - 1)),
    st.builds(
        lambda n, text: "\r\n".join([*LINES[:n], LINES[n].split(":")[0] + ":" + text, *LINES[n + 1 :]]),
        st.integers(0, len(LINES) - 1),
        st.text(max_size=20),
    ),
    st.builds(lambda order: "\r\n".join(order), st.permutations(LINES)),
    st.text(max_size=60),
)


def test_two_hundred_mutated_offers_leave_a_launcher_that_answers_a_good_one() -> None:
    with launch("obedient", MAX_SESSIONS="300", WEBRTC_CONNECT_TIMEOUT="0.5") as launcher:

        @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(MUTATIONS)
        def mutate(sdp: str) -> None:
            body = json.dumps({"sdp": sdp, "type": "offer", "requestData": {"do": "return"}}).encode("utf-8", "replace")
            response = launcher.http.post("/api/offer", content=body)
            # Some mutations are offers still; none is an error of ours.
            assert response.status_code in (200, 400), response.text

        mutate()
        # What aiortc finds out only while it connects is in the log, as a task of its own that failed.
        assert f"{os.sep}pipecat_base{os.sep}" not in launcher.log()
        process = psutil.Process(launcher.process.pid)
        until(lambda: len(process.net_connections("udp")) == 0, "no socket of a peer left", timeout=20)

        async def scenario() -> None:
            async with Browser(url(launcher)) as browser:
                assert (await browser.offer(requestData={"do": "hang"})).status_code == 200
                await asyncio.to_thread(
                    until, lambda: browser.pc.connectionState == "connected", "the good call to connect"
                )

        play(scenario)


def test_a_restart_on_which_the_bot_ends_leaves_no_connection(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(CENSUS + ENDS_WITH_ITS_CLIENT)
    with launch(tmp_path) as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as page, Browser(url(launcher)) as again:
                await page.offer()
                await asyncio.to_thread(until, lambda: page.pc.connectionState == "connected", "the connection")
                await asyncio.to_thread(until, launcher.said, "the bot to listen")
                again.pc_id = page.pc_id
                # Which of the two comes first, the new answer or the bot's end, is pipecat's affair.
                assert (await again.offer(restart_pc=True)).status_code in (200, 404)
                await asyncio.to_thread(launcher.wait_for_log, "Session ended: completed")

                await asyncio.to_thread(until, nothing_left, "the connections to be gone", 5)

        def nothing_left() -> bool:
            post(launcher, {"do": "count"})
            return not launcher.said()[-1]["RTCPeerConnection"]

        play(scenario)


def test_a_restart_goes_on_with_a_bot_that_does_not_mind() -> None:
    with launch("obedient") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as page, Browser(url(launcher)) as again:
                await page.offer(requestData={"do": "hang"})
                again.pc_id = page.pc_id
                answers = [(await again.offer(restart_pc=True)).json()]
                await asyncio.to_thread(until, lambda: again.pc.connectionState == "connected", "the connection")
                assert answers[0]["pc_id"] != page.pc_id
                patch = {"pc_id": answers[0]["pc_id"], "candidates": []}
                assert (await again.http.patch("/api/offer", json=patch)).status_code == 200
                assert (await again.http.patch("/api/offer", json={**patch, "pc_id": page.pc_id})).status_code == 404

        play(scenario)


def test_a_client_with_data_alone_is_not_taken_for_gone() -> None:
    with launch("obedient", WEBRTC_DISCONNECT_TIMEOUT="1.5") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher), data_only=True) as browser:
                await browser.offer(requestData={"do": "sleep", "seconds": 4})
                await asyncio.to_thread(launcher.wait_for_log, "Session ended: completed")

        play(scenario)


def test_candidates_that_come_later_are_added(caller: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(url(caller)) as browser:
            await browser.offer()

            async def trickle(**content: Any) -> int:
                return (await browser.http.patch("/api/offer", json=content)).status_code

            candidate = "candidate:1 1 UDP 2122252543 127.0.0.1 50000 typ host"
            good = {"candidate": candidate, "sdp_mid": "0", "sdp_mline_index": 0}
            end = {"candidate": "", "sdp_mid": "0", "sdp_mline_index": 0}
            assert await trickle(pc_id=browser.pc_id, candidates=[good, end]) == 200
            assert await trickle(pc_id=browser.pc_id, candidates=[]) == 200
            assert await trickle(pc_id="nobody", candidates=[good]) == 404
            for wrong in ({"candidate": "x"}, {"candidate": 5}, "x", {**good, "candidate": "candidate:garbage"}):
                assert await trickle(pc_id=browser.pc_id, candidates=[wrong]) == 400
            assert await trickle(pc_id=browser.pc_id, candidates=[good] * 1000) == 400
            assert await trickle(candidates=[good]) == 400
            assert await trickle(pc_id=browser.pc_id, candidates=[{**good, "sdp_mid": "99"}]) in (200, 400)

    play(scenario)


@pytest.mark.parametrize(
    "candidates",
    [
        [{"candidate": "{}", "sdpMid": "0", "sdpMLineIndex": 0, "usernameFragment": "abcd"}, None],
        [{"candidate": "{}", "sdpMid": "0"}, {"candidate": None}],
        [{"candidate": "{}", "sdpMid": None, "sdpMLineIndex": 0}, {"candidate": "", "sdpMid": "0"}],
        [{"candidate": "candidate:x", "sdpMid": "0"}, 5, {}, {"candidate": "{}", "sdp_mid": "0"}, "x"],
        [{"candidate": "{}", "sdpMid": "0", "sdpMLineIndex": 0}, {"candidate": "{}"}],
        [None],
    ],
)
def test_candidates_are_taken_as_browsers_write_them_and_a_bad_one_does_not_refuse_the_rest(
    caller: Launcher, candidates: list[Any]
) -> None:
    written = "candidate:1 1 udp 2122252543 127.0.0.1 {} typ host generation 0 ufrag abcd network-id 1"

    def filled(entry: Any, port: int) -> Any:
        if not isinstance(entry, dict) or entry.get("candidate") != "{}":
            return entry
        return {**entry, "candidate": written.format(port)}

    async def scenario() -> None:
        async with Browser(url(caller)) as browser:
            await browser.offer()
            patch = {"pc_id": browser.pc_id, "candidates": [filled(entry, 50000) for entry in candidates]}
            answer = await browser.http.patch("/api/offer", json=patch)
            assert (answer.status_code, answer.json()) == (200, {"status": "success"})
            assert await browser.hear(0.2), "the call goes on"

    play(scenario)


def test_a_call_that_needs_its_candidates_connects_with_those_that_come_as_browsers_write_them() -> None:
    async def scenario() -> None:
        async with Browser(url(launcher)) as browser:
            post = browser.http.post
            offered: list[str] = []

            async def without_candidates(path: str, json: Any) -> Any:
                offered.extend(line for line in json["sdp"].splitlines() if line.startswith("a=candidate"))
                kept = [line for line in json["sdp"].splitlines() if not line.startswith(("a=candidate", "a=end-of"))]
                return await post(path, json={**json, "sdp": "\r\n".join([*kept, ""])})

            browser.http.post = without_candidates  # type: ignore[assignment]
            await browser.offer()
            entries = [{"candidate": line.removeprefix("a="), "sdpMid": "0", "sdpMLineIndex": 0} for line in offered]
            patch = {"pc_id": browser.pc_id, "candidates": ["garbage", *entries[:20], None]}
            assert (await browser.http.patch("/api/offer", json=patch)).status_code == 200
            assert await browser.hear(0.2)

    with launch() as launcher:
        play(scenario)


def ports_of(sdp: str) -> set[int]:
    return {int(line.split()[5]) for line in sdp.splitlines() if line.startswith("a=candidate")}


def test_calls_use_only_the_udp_ports_that_are_permitted() -> None:
    async def scenario() -> None:
        async with Browser(url(launcher)) as one, Browser(url(launcher)) as two:
            for browser in (one, two):
                assert ports_of((await browser.offer()).json()["sdp"]) <= set(range(port, port + 20))
                assert await browser.hear(0.2)

    port = free_port()
    with launch(PIPECAT_UDP_PORTS=f"{port}-{port + 19}") as launcher:
        play(scenario)


def test_a_call_without_a_free_udp_port_is_refused_and_the_next_one_taken() -> None:
    async def scenario() -> None:
        async with Browser(url(launcher)) as second:
            async with Browser(url(launcher)) as first:
                assert ports_of((await first.offer()).json()["sdp"]) == {port}
                assert await first.hear(0.1)
                refused = await second.http.post("/api/offer", json={"sdp": SDP, "type": "offer"})
                assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_udp_port")
                assert f"PIPECAT_UDP_PORTS ({port}-{port})" in refused.json()["error"]["message"]
            async with asyncio.timeout(20):
                while (await second.offer()).status_code == 503:
                    await asyncio.sleep(0.2)
            assert await second.hear(0.1)

    port = free_port()
    with launch(PIPECAT_UDP_PORTS=str(port), WEBRTC_DISCONNECT_TIMEOUT="1") as launcher:
        play(scenario)


def test_a_waiting_bot_request_gets_its_offer_its_body_and_its_outcome() -> None:
    with launch("obedient") as launcher, ThreadPoolExecutor() as pool:
        one = pool.submit(wait_for_offer, launcher, "one", {"do": "sleep", "seconds": 0.5, "n": 1})
        two = pool.submit(wait_for_offer, launcher, "two", {"do": "raise", "n": 2})
        # Another session's end touches neither.
        assert post(launcher, {}).status_code == 200
        time.sleep(0.3)
        assert not one.done()
        assert not two.done()

        async def scenario() -> None:
            for session_id in ("two", "one"):
                async with Browser(url(launcher), session=session_id) as browser:
                    assert (await browser.offer()).status_code == 200
                    await asyncio.wait_for(browser.ended.wait(), 10)

        play(scenario)
        assert (one.result().status_code, one.result().headers["x-pipecat-session-outcome"]) == (200, "completed")
        assert (two.result().status_code, two.result().json()["error"]["session_id"]) == (500, "two")
        bodies = {said["args"]["session_id"]: said["args"]["body"] for said in launcher.said() if "args" in said}
        assert (bodies["one"]["n"], bodies["two"]["n"]) == (1, 2)


@pytest.fixture(scope="module")
def listed() -> Iterator[Launcher]:
    """With a gateway, which lists sessions."""
    with launch("obedient", PIPECAT_GATEWAY="1") as launcher:
        yield launcher


@pytest.mark.parametrize("data", [{}, None, "absent", [], ""])
@pytest.mark.parametrize("name", ["request_data", "requestData"])
def test_an_offer_that_says_nothing_leaves_the_waiting_request_its_body_and_its_flow(
    listed: Launcher, name: str, data: Any
) -> None:
    session_id = f"empty-{name}-{data!r}"
    said = {} if data == "absent" else {name: data}
    envelope = {"body": {"do": "return", "n": 7}, "flow_config": "a flow"}
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for_offer, listed, session_id, envelope, **{"x-pcc-start-envelope": "1"})
        until(lambda: listed.http.get(f"/sessions/{session_id}").json().get("state") == "waiting", "the wait")
        named = {"x-daily-session-id": session_id}
        offer = {"sdp": SDP, "type": "offer", **said}
        assert listed.http.post("/api/offer", json=offer, headers=named).status_code == 200
        assert waiting.result().status_code == 200
    given = listed.arguments(session_id)
    assert (given["body"], given["flow_config"]) == ({"do": "return", "n": 7}, "a flow")


def test_both_room_headers_make_it_a_daily_session(obedient: Launcher) -> None:
    room = {"x-daily-room-url": "https://d/r", "x-daily-room-token": "t"}
    assert wait_for_offer(obedient, "daily-and-webrtc", {}, **room).status_code == 200
    given = obedient.arguments("daily-and-webrtc")
    assert (given["room_url"], given["token"]) == ("https://d/r", "t")


def test_a_bot_request_whose_offer_does_not_come_is_504_and_forgotten() -> None:
    with launch("obedient", WEBRTC_OFFER_TIMEOUT="0.3", MAX_SESSIONS="1") as launcher:
        response = wait_for_offer(launcher, "late", {"secret": 1})
        assert (response.status_code, response.json()["error"]["code"]) == (504, "no_offer")

        async def scenario() -> None:
            async with Browser(url(launcher), session="late") as browser:
                assert (await browser.offer()).status_code == 200

        play(scenario)
        until(launcher.said, "the bot")
        assert launcher.said()[0]["args"]["body"] == {}


def test_a_caller_that_goes_away_while_it_waits_frees_its_place_at_once() -> None:
    with launch("obedient", MAX_SESSIONS="1") as launcher:
        with pytest.raises(Exception, match="timed out"):
            launcher.http.post("/bot", headers={"x-daily-transport-type": "webrtc"}, timeout=0.3)
        until(lambda: post(launcher, {}).status_code == 200, "a free place", timeout=3)


def test_a_garbage_offer_does_not_end_the_wait() -> None:
    with launch("obedient") as launcher, ThreadPoolExecutor() as pool:
        waiting = pool.submit(wait_for_offer, launcher, "w", {"do": "return"})
        time.sleep(0.2)
        named = {"x-daily-session-id": "w"}
        assert launcher.http.post("/api/offer", json={"sdp": "x", "type": "offer"}, headers=named).status_code == 400

        async def scenario() -> None:
            async with Browser(url(launcher), session="w") as browser:
                assert (await browser.offer()).status_code == 200

        play(scenario)
        assert waiting.result().status_code == 200


def test_a_page_that_was_reloaded_takes_its_session_over() -> None:
    with (
        launch("obedient", WEBRTC_CONNECT_TIMEOUT="2", WEBRTC_DISCONNECT_TIMEOUT="2") as launcher,
        ThreadPoolExecutor() as pool,
    ):
        waiting = pool.submit(wait_for_offer, launcher, "tab", {"do": "hang", "n": 1})
        time.sleep(0.2)

        async def scenario() -> None:
            async with Browser(url(launcher), session="tab") as first, Browser(url(launcher), session="tab") as second:
                assert (await first.offer()).status_code == 200
                until(lambda: len(launcher.said()) == 1, "the first run")
                with measured() as seconds:
                    assert (await second.offer()).status_code == 200
                    await asyncio.wait_for(first.ended.wait(), 5)
                    await asyncio.to_thread(until, lambda: len(launcher.said()) == 3, "the second run")
                    assert seconds() < 2

        play(scenario)
        runs = [said["args"] for said in launcher.said() if "args" in said]
        assert [(run["session_id"], run["body"]["n"]) for run in runs] == [("tab", 1), ("tab", 1)]
        # The waiting request is answered once the second page has left too.
        assert waiting.result(20).headers["x-pipecat-session-outcome"] == "disconnected"


def test_a_session_that_is_taken_over_keeps_its_limit() -> None:
    with launch("obedient") as launcher, ThreadPoolExecutor() as pool:
        limit = {"x-pcc-max-session-seconds": "2"}
        waiting = pool.submit(wait_for_offer, launcher, "long", {"do": "hang"}, **limit)
        time.sleep(0.2)

        async def scenario() -> None:
            async with (
                Browser(url(launcher), session="long") as first,
                Browser(url(launcher), session="long") as second,
            ):
                await first.offer()
                await asyncio.sleep(1.2)
                await second.offer()
                with measured() as seconds:
                    await asyncio.wait_for(second.ended.wait(), 10)
                    assert seconds() < 1.9

        play(scenario)
        assert waiting.result().headers["x-pipecat-session-outcome"] == "expired"


@pytest.mark.parametrize("act", [{"do": "sleep", "seconds": 1}, {"do": "sleep-and-raise", "seconds": 1}])
def test_when_the_bot_ends_its_client_notices_within_a_second(act: dict[str, Any]) -> None:
    with launch("obedient") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as browser:
                assert (await browser.offer(requestData=act)).status_code == 200
                ended = {"sleep": "completed", "sleep-and-raise": "failed"}[str(act["do"])]
                await asyncio.to_thread(launcher.wait_for_log, f"Session ended: {ended}")
                await asyncio.wait_for(browser.ended.wait(), 1)

        play(scenario)


CLIENT = """
import asyncio, sys
from tests.support.browser_peer import Browser

async def main():
    async with Browser(sys.argv[1]) as browser:
        await browser.offer(requestData={"do": "hang"})
        if sys.argv[2] == "talk":
            await browser.hear(0.2)
        while browser.pc.connectionState != "connected":
            await asyncio.sleep(0.01)
        print("there", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("bot", ["echo", "obedient"])
def test_a_client_that_is_killed_frees_its_place(bot: str) -> None:
    folder = ROOT / "examples" / "echo" if bot == "echo" else "obedient"
    variables = {"MAX_SESSIONS": "1", "WEBRTC_DISCONNECT_TIMEOUT": "2", "WEBRTC_CONNECT_TIMEOUT": "2"}
    with launch(folder, **variables) as launcher:
        code = [sys.executable, "-c", CLIENT, url(launcher), "talk" if bot == "echo" else "wait"]
        client = subprocess.Popen(code, cwd=ROOT, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert client.stdout is not None
        assert client.stdout.readline() == b"there\n"
        assert probe(launcher, "/readyz").json()["state"] == "full"
        client.send_signal(signal.SIGKILL)
        client.wait()
        client.stdout.close()
        launcher.wait_for_log("Peer was silent for 2 s")
        launcher.wait_for_log("Session ended")
        until(launcher.is_ready, "the place to be free")


def test_a_client_that_leaves_before_ice_frees_its_place() -> None:
    with launch("obedient", MAX_SESSIONS="1", WEBRTC_CONNECT_TIMEOUT="0.5") as launcher:
        body = {"sdp": SDP, "type": "offer", "requestData": {"do": "hang"}}
        assert launcher.http.post("/api/offer", json=body).status_code == 200
        launcher.wait_for_log("Peer did not connect within 0.5 s")
        until(lambda: post(launcher, {}).status_code == 200, "a free place", timeout=8)
        assert "Session ended: disconnected" in launcher.log()


def test_of_many_offers_for_one_place_exactly_one_starts_a_bot() -> None:
    with launch("obedient", MAX_SESSIONS="1") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as browser:
                body = {"sdp": SDP, "type": "offer", "requestData": {"do": "hang"}}
                posts = [browser.http.post("/api/offer", json=body) for _ in range(12)]
                statuses = [response.status_code for response in await asyncio.gather(*posts)]
                assert (statuses.count(200), statuses.count(429)) == (1, 11)

        play(scenario)
        until(launcher.said, "the bot")
        assert len([said for said in launcher.said() if "args" in said]) == 1


def test_a_call_goes_on_while_the_launcher_drains_and_its_candidates_are_taken() -> None:
    with launch() as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as browser:
                await browser.offer()
                await browser.hear(0.2)
                launcher.signal()
                await asyncio.to_thread(launcher.wait_for_log, "Draining")
                assert pitch(await browser.hear(0.5), RATE) == pytest.approx(440, abs=5)
                trickle = {"pc_id": browser.pc_id, "candidates": [{"candidate": "", "sdp_mid": "0"}]}
                assert (await browser.http.patch("/api/offer", json=trickle)).status_code == 200
                assert (await browser.http.post("/api/offer", json={"sdp": SDP, "type": "offer"})).status_code == 503
                assert probe(launcher, "/livez").status_code == 200

        play(scenario)
        assert launcher.wait(timeout=15) == 0


def test_at_the_deadline_the_client_is_told() -> None:
    with launch("obedient", SHUTDOWN_TIMEOUT="0.5") as launcher:

        async def scenario() -> None:
            async with Browser(url(launcher)) as browser:
                await browser.offer(requestData={"do": "hang"})
                await asyncio.to_thread(launcher.wait_for_log, "Session started")
                await asyncio.sleep(1)
                launcher.signal()
                await asyncio.wait_for(browser.ended.wait(), 3)

        play(scenario)
        assert launcher.wait(timeout=10) == 0


def udp_sockets(launcher: psutil.Process) -> int:
    """Of a launcher and of the processes that its calls have."""
    found = 0
    for process in (launcher, *launcher.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += len(process.net_connections("udp"))
    return found


def test_two_hundred_calls_leave_nothing(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(CENSUS)
    with launch(tmp_path, PIPECAT_LOG_LEVEL="WARNING") as launcher:
        process = psutil.Process(launcher.process.pid)
        body = {"sdp": SDP, "type": "offer"}

        def counted() -> dict[str, int]:
            post(launcher, {"do": "count"})
            return launcher.said()[-1]

        def calls() -> int:
            for _ in range(200):
                assert launcher.http.post("/api/offer", json=body).status_code == 200
            until(lambda: udp_sockets(process) == 0, "the sockets to be closed", timeout=30)
            # Each look collects the garbage, and the last one, with no call left, gives back what is free.
            until(
                lambda: not any(n for kind, n in counted().items() if kind not in ("said", "tasks")), "no call's trace"
            )
            return int(process.memory_info().rss)

        assert launcher.http.post("/api/offer", json={**body, "requestData": {"do": "count"}}).status_code == 200
        until(launcher.said, "the bot's census")
        assert all(launcher.said()[0].values())  # of its own call
        calls()  # imports, caches
        files, before = process.num_fds(), counted()
        assert settles(calls, within=1_000_000)
        until(lambda: process.num_fds() <= files, "as few descriptors as before", timeout=15)
        until(lambda: counted() == before, f"no more than before: {before}", timeout=15)
        assert not any(count for kind, count in before.items() if kind not in ("said", "tasks"))


def test_without_webrtc_the_route_is_not_there(tmp_path: Any) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args): ...\n")
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\nreal = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, package=None: None if name == 'aiortc' else real(name, package)\n"
    )
    with launch(tmp_path, PYTHONPATH=str(tmp_path)) as launcher:
        absent = launcher.http.post("/api/offer", json={})
        assert (absent.status_code, absent.json()["error"]["code"]) == (404, "not_served")
        assert "pip install pipecat-ai[webrtc]" in absent.json()["error"]["message"]
        refused = wait_for_offer(launcher, "x", {})
        assert (refused.status_code, refused.json()["error"]["code"]) == (501, "not_supported")


def test_the_features_summary_and_the_warming_import_do_not_meet() -> None:
    for _ in range(3):
        with launch(PCC_LOG_FEATURES_SUMMARY="true") as launcher:
            launcher.wait_for_log("SmallWebRTC ICE Candidates: ")
            assert "SmallWebRTC Transport: ENABLED" in launcher.log()
            assert "does not import" not in launcher.log()


def test_every_line_of_a_call_carries_its_session(caller: Launcher) -> None:
    async def scenario() -> None:
        async with Browser(url(caller), session="rtc-log") as browser:
            await browser.offer()
            await browser.hear(0.2)

    play(scenario)
    caller.wait_for_log("| rtc-log - Session ended")
    log = caller.log().split("| rtc-log - ")
    assert any(line.startswith(("Connection state changed", "ICE connection state")) for line in log[1:])


def test_an_esp32_gets_the_answer_that_it_understands() -> None:
    # An address of this machine: pipecat keeps only the candidates that have it.
    host = next(line.split()[4] for line in SDP.splitlines() if line.startswith("a=candidate") and "." in line)
    with launch("obedient", ESP32_ENABLED="true", ESP32_HOST=host) as launcher:
        body = {"sdp": SDP, "type": "offer", "requestData": {"do": "return"}}
        sdp = launcher.http.post("/api/offer", json=body).json()["sdp"]
        assert "a=fingerprint:sha-256" in sdp
        assert "sha-384" not in sdp
        assert "sha-512" not in sdp
        candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate")]
        assert candidates
        assert all(host in line for line in candidates)
