"""WhatsApp: signed webhooks in, the Graph API out, aiortc peers as callers."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.browser_peer import RATE
from tests.support.graph_api import (
    EXPIRED,
    NUMBER,
    SECRET,
    TOKEN,
    VARIABLES,
    VERIFICATION,
    Caller,
    Graph,
    call_id,
    connect,
    deliver,
    sign,
    terminate,
    webhook,
)
from tests.support.launchers import Launcher, measured, until
from tests.support.offers import NO_ICE, SDP, play
from tests.support.tones import pitch

META_SDP = [
    "v=0",
    "o=- 7602563789789945080 2 IN IP4 127.0.0.1",
    "s=-",
    "t=0 0",
    "a=group:BUNDLE audio",
    "a=msid-semantic: WMS 5A8C4D8E",
    "a=ice-lite",
    "m=audio 3484 UDP/TLS/RTP/SAVPF 111 126",
    "c=IN IP4 127.0.0.1",
    "a=rtcp:9 IN IP4 0.0.0.0",
    "a=candidate:3840104541 1 udp 2122260223 127.0.0.1 3484 typ host generation 0 network-cost 50 ufrag p6Qm",
    "a=ice-ufrag:p6Qm",
    "a=ice-pwd:Wf0dWVHvRDcH0nXrK+qYQhAz",
    "a=fingerprint:sha-256 " + ":".join(f"{n:02X}" for n in range(32)),
    "a=setup:actpass",
    "a=mid:audio",
    "a=sendrecv",
    "a=rtcp-mux",
    "a=rtpmap:111 opus/48000/2",
    "a=fmtp:111 maxaveragebitrate=20000;maxplaybackrate=16000;minptime=20;useinbandfec=1",
    "a=rtpmap:126 telephone-event/8000",
    "a=ptime:20",
    "",
]
"""As Meta documents it: ICE-lite, a named section, telephone events beside Opus."""


def launch(graph: Graph, do: str = "echo", **variables: Any) -> Launcher:
    return Launcher(
        "whatsapp", **{**NO_ICE, **VARIABLES, "DRAIN_NOTICE": "0", **graph.variables, "DO": do, **variables}
    )


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    with Graph() as graph:
        yield graph


@pytest.fixture(scope="module")
def launcher(graph: Graph) -> Iterator[Launcher]:
    with launch(graph) as launcher:
        yield launcher


@pytest.fixture(scope="module")
def hanging(graph: Graph) -> Iterator[Launcher]:
    """Its bot stays until it is ended."""
    with launch(graph, "hang", MAX_SESSIONS="1") as launcher:
        yield launcher


def hang_up(launcher: Launcher, call: str) -> None:
    """The caller hangs up; its place is free again."""
    assert deliver(launcher, terminate(call)).status_code == 200
    until(launcher.is_ready, "the place to be free")


def test_a_call_is_answered_heard_and_over_when_the_caller_hangs_up(launcher: Launcher, graph: Graph) -> None:
    async def scenario() -> None:
        async with Caller(launcher, graph) as caller:
            assert (await caller.call()).json() == {"status": "success"}
            assert pitch(await caller.hear(0.5), RATE) == pytest.approx(440, abs=5)
            said = next(line for line in launcher.said() if line.get("session") == caller.id)
            assert said["type"] in ("SmallWebRTCRunnerArguments", "SmallWebRTCSessionArguments")
            assert (said["body"], said["id"], said["caller"]) == ("WhatsAppConnectCall", caller.id, "16315553601")
            response = await asyncio.to_thread(deliver, launcher, terminate(caller.id))
            assert response.status_code == 200
            await asyncio.to_thread(launcher.wait_for_log, f"{caller.id} - Session ended")
            # The caller knows: it hung up.
            assert graph.actions(caller.id) == ["pre_accept", "accept"]

    play(scenario)


def test_the_graph_api_gets_what_it_documents(launcher: Launcher, graph: Graph) -> None:
    async def scenario() -> None:
        async with Caller(launcher, graph) as caller:
            await caller.call()
            await caller.hear(0.2)
            request = graph.wait_for(caller.id, "pre_accept")
            assert (request["messaging_product"], request["to"]) == ("whatsapp", "16315553601")
            sdp = request["session"]["sdp"]
            fingerprints = [line for line in sdp.splitlines() if line.startswith("a=fingerprint")]
            assert fingerprints
            assert all(line.startswith("a=fingerprint:sha-256 ") for line in fingerprints)
            assert graph.wait_for(caller.id, "accept")["session"] == request["session"]
            await asyncio.to_thread(deliver, launcher, terminate(caller.id))

    play(scenario)


def test_ten_calls_at_once_are_not_crossed(launcher: Launcher, graph: Graph) -> None:
    async def one(frequency: float) -> float:
        async with Caller(launcher, graph, frequency) as caller:
            await caller.call()
            heard = pitch(await caller.hear(0.5, timeout=30), RATE)
            await asyncio.to_thread(deliver, launcher, terminate(caller.id))
            return heard

    async def scenario() -> None:
        frequencies = [300 + 100 * n for n in range(10)]
        heard = await asyncio.gather(*map(one, frequencies))
        assert heard == [pytest.approx(frequency, abs=5) for frequency in frequencies]

    play(scenario)


@pytest.mark.parametrize(("signature", "status"), [("", 401), ("sha256=", 403), (sign(b"{}"), 403), ("é", 403)])
def test_what_meta_has_not_signed_does_nothing(launcher: Launcher, graph: Graph, signature: str, status: int) -> None:
    body = connect("wacid.unsigned", SDP)
    headers = {b"x-hub-signature-256": signature.encode()} if signature else {}
    response = launcher.http.post("/whatsapp", content=body, headers=headers)
    assert response.status_code == status
    assert response.json()["error"]["code"] == {401: "signature_missing", 403: "signature_wrong"}[status]
    assert graph.actions("wacid.unsigned") == []


def test_a_signature_with_another_secret_is_refused_before_anything_is_read(launcher: Launcher) -> None:
    response = deliver(launcher, b"{not json", x_hub_signature_256=sign(b"{not json", "another"))
    assert response.status_code == 403
    assert deliver(launcher, b"{not json").status_code == 400


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [{"from": "16315553601", "text": {"body": "private words"}, "type": "text"}]},
        {"statuses": [{"id": "wamid.private", "status": "delivered"}]},
        {"calls": [{"id": "wacid.private", "event": "ringing"}]},
        {"calls": [{"event": "connect"}]},
        {"calls": ["private"]},
        {"calls": [{"id": "wacid.x", "event": "connect", "direction": "BUSINESS_INITIATED"}]},
        {"something": "private"},
    ],
)
def test_events_that_are_not_for_a_bot_are_acknowledged(launcher: Launcher, graph: Graph, value: Any) -> None:
    asked, ignored = len(graph.requests), launcher.log().count("WhatsApp: ignored")
    assert deliver(launcher, webhook(value)).json() == {"status": "success"}
    assert len(graph.requests) == asked
    launcher.wait_for_log("WhatsApp: ignored", times=ignored + 1)
    assert "private" not in launcher.log()


@pytest.mark.parametrize("content", [[], {}, {"entry": "private"}, {"entry": [{"changes": [None]}]}, 5])
def test_webhooks_of_another_shape_are_acknowledged(launcher: Launcher, content: Any) -> None:
    assert deliver(launcher, json.dumps(content).encode()).status_code == 200


def test_a_call_that_is_delivered_again_is_answered_once(hanging: Launcher, graph: Graph) -> None:
    body = connect(call := call_id(), SDP)
    with_threads = [threading.Thread(target=deliver, args=(hanging, body)) for _ in range(5)]
    for thread in with_threads:
        thread.start()
    for thread in with_threads:
        thread.join()
    hang_up(hanging, call)
    assert deliver(hanging, body).status_code == 200  # and after its end, too
    assert graph.actions(call) == ["pre_accept", "accept"]
    assert sum(line.get("id") == call for line in hanging.said()) == 1


def test_an_offer_as_whatsapp_sends_it_is_answered(hanging: Launcher, graph: Graph) -> None:
    deliver(hanging, connect(call := call_id(), "\r\n".join(META_SDP), direction="USER_INITIATED"))
    sdp = graph.wait_for(call, "accept")["session"]["sdp"].splitlines()
    assert "a=mid:audio" in sdp
    assert "a=setup:active" in sdp
    assert "a=rtpmap:111 opus/48000/2" in sdp
    hang_up(hanging, call)


@pytest.mark.parametrize("fields", [{"timestamp": 5}, {"from": None}, {"to": ["x"]}])
def test_a_call_whose_fields_are_odd_is_declined_before_it_is_accepted(
    hanging: Launcher, graph: Graph, fields: dict[str, Any]
) -> None:
    assert deliver(hanging, connect(call := call_id(), SDP, **fields)).status_code == 200
    assert graph.actions(call) == ["reject"]


def test_two_calls_in_one_webhook_and_with_one_session_id_are_both_answered(launcher: Launcher, graph: Graph) -> None:
    calls = [json.loads(connect(call_id(), SDP))["entry"][0]["changes"][0]["value"]["calls"][0] for _ in range(2)]
    ids = [call["id"] for call in calls]
    deliver(launcher, webhook({"calls": calls}), x_daily_session_id="shared")
    deliver(launcher, connect(third := call_id(), SDP), x_daily_session_id="shared")
    for call in (*ids, third):
        assert graph.actions(call) == ["pre_accept", "accept"]
        deliver(launcher, terminate(call))

    def sessions() -> set[str]:
        return {line["session"] for line in launcher.said() if line.get("id") in (*ids, third)}

    until(lambda: len(sessions()) == 3, "three bots")
    assert "shared" in sessions()


def test_a_call_that_ends_while_the_launcher_still_warms_up_is_over(graph: Graph) -> None:
    with launch(graph, "hang", MAX_SESSIONS="1") as launcher, ThreadPoolExecutor() as pool:
        call = call_id()
        ringing = pool.submit(deliver, launcher, connect(call, SDP))
        time.sleep(0.02)
        deliver(launcher, terminate(call))
        assert ringing.result().status_code == 200
        launcher.wait_for_log("WhatsApp reported the end of the call")
        ends = ("WhatsApp call over before it was answered", "Session ended")
        until(lambda: any(launcher.lines(end) for end in ends), "the end of the call")
        until(launcher.is_ready, "the place to be free")
        assert len(launcher.said()) in (0, 2)  # a bot that began has ended
        assert graph.actions(call) in ([], ["pre_accept"], ["pre_accept", "accept"])


def test_a_call_whose_end_arrives_first_starts_no_session(hanging: Launcher, graph: Graph) -> None:
    call = call_id()
    assert deliver(hanging, terminate(call)).status_code == 200
    assert deliver(hanging, connect(call, SDP)).status_code == 200
    assert graph.actions(call) == []


def test_of_ten_thousand_calls_the_ids_are_remembered_and_no_more(hanging: Launcher, graph: Graph) -> None:
    def ended(ids: list[str]) -> bytes:
        return webhook({"calls": [{"id": call, "event": "terminate"} for call in ids]})

    first, *others = [call_id() for _ in range(10_001)]
    assert deliver(hanging, ended([first, *others[:-1]])).status_code == 200
    assert deliver(hanging, connect(first, SDP)).status_code == 200
    assert graph.actions(first) == []  # the oldest of ten thousand is known still
    assert deliver(hanging, ended(others[-1:])).status_code == 200
    assert deliver(hanging, connect(others[-1], SDP)).status_code == 200
    assert graph.actions(others[-1]) == []
    assert deliver(hanging, connect(first, SDP)).status_code == 200
    graph.wait_for(first, "accept")
    hang_up(hanging, first)


def test_a_call_without_a_usable_offer_is_declined(hanging: Launcher, graph: Graph) -> None:
    for sdp in ("", "garbage", SDP[:300]):
        call = call_id()
        assert deliver(hanging, connect(call, sdp)).status_code == 200
        assert graph.actions(call) == ["reject"]
    hanging.wait_for_log("WhatsApp call declined: malformed")


def test_when_it_is_full_the_call_is_declined(hanging: Launcher, graph: Graph) -> None:
    first, second = call_id(), call_id()
    deliver(hanging, connect(first, SDP))
    assert deliver(hanging, connect(second, SDP)).status_code == 200
    assert graph.actions(second) == ["reject"]
    hang_up(hanging, first)
    assert graph.actions(first) == ["pre_accept", "accept"]
    third = call_id()
    deliver(hanging, connect(third, SDP))
    hang_up(hanging, third)
    assert graph.actions(third) == ["pre_accept", "accept"]


@pytest.mark.parametrize("do", ["return", "raise"])
def test_when_the_bot_ends_the_call_is_ended_at_meta(graph: Graph, do: str) -> None:
    with launch(graph, do) as launcher:

        async def scenario() -> None:
            async with Caller(launcher, graph) as caller:
                await caller.call()
                told = await asyncio.to_thread(graph.wait_for, caller.id, "terminate")
                assert told["at"] - graph.wait_for(caller.id, "accept")["at"] < 2

        play(scenario)


REFUSALS: dict[str, Any] = {
    "an expired token": (lambda request: (401, json.dumps(EXPIRED).encode()), "code 190: Error validating"),
    "a server error": (lambda request: (503, b"<html>unavailable</html>"), "answered 503 without JSON"),
    "no success": (lambda request: (200, b"{}"), "without a reason"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_graph_api_that_fails_is_one_line_in_the_log(name: str) -> None:
    reply, reason = REFUSALS[name]
    with Graph() as graph, launch(graph, PIPECAT_LOG_LEVEL="INFO") as launcher:
        graph.reply = reply
        assert deliver(launcher, connect(call_id(), SDP), x_daily_session_id="s").status_code == 200
        launcher.wait_for_log("WhatsApp call failed: pre_accept: ")
        errors = [line for line in launcher.log().splitlines() if "ERROR" in line or "WARNING" in line]
        assert len(errors) == 1
        assert reason in errors[0]
        assert "| s - " in errors[0]
        assert TOKEN not in launcher.log()
        assert launcher.said() == []
        assert launcher.stop() == 0


def test_a_graph_api_that_hangs_does_not_hold_up_the_webhook() -> None:
    stuck = threading.Event()

    def hang(request: dict[str, Any]) -> tuple[int, bytes]:
        stuck.wait({"pre_accept": 3, "accept": 20}.get(request["action"], 0))
        return 200, b'{"success": true}'

    with Graph() as graph, launch(graph) as launcher:
        graph.reply = hang
        with measured() as seconds:
            assert deliver(launcher, connect(call := call_id(), SDP)).status_code == 200
            assert seconds() < 7  # to be told that it failed takes 8 s
        launcher.wait_for_log("WhatsApp call failed: accept: the Graph API did not answer in time")
        assert launcher.said() == []
        # It may have been accepted all the same: it is ended, not declined.
        assert graph.wait_for(call, "terminate")
        stuck.set()


def test_while_it_drains_a_call_is_declined_and_at_the_deadline_calls_are_ended_at_meta(graph: Graph) -> None:
    with launch(graph, "hang", SHUTDOWN_TIMEOUT="2") as launcher:
        running, late = call_id(), call_id()
        deliver(launcher, connect(running, SDP))
        launcher.signal()
        launcher.wait_for_log("Draining")
        assert deliver(launcher, connect(late, SDP)).status_code == 200
        assert graph.actions(late) == ["reject"]
        assert graph.actions(running) == ["pre_accept", "accept"]
        assert launcher.wait() == 0
        assert graph.actions(running) == ["pre_accept", "accept", "terminate"]


def test_a_vanished_caller_frees_its_slot(graph: Graph) -> None:
    with launch(graph, "hang", WEBRTC_CONNECT_TIMEOUT="1") as launcher:
        call = call_id()
        began = time.monotonic()
        deliver(launcher, connect(call, SDP))  # nobody is behind this SDP
        graph.wait_for(call, "terminate")
        assert time.monotonic() - began < 15
        launcher.wait_for_log("Session ended: disconnected")


def test_meta_verifies_the_webhook(launcher: Launcher) -> None:
    good = {"hub.mode": "subscribe", "hub.verify_token": VERIFICATION, "hub.challenge": "1158201444"}
    response = launcher.http.get("/whatsapp", params=good)
    assert (response.status_code, response.text) == (200, "1158201444")
    assert response.headers["content-type"].startswith("text/plain")
    for wrong in ({"hub.verify_token": "guess"}, {"hub.verify_token": ""}, {"hub.mode": "unsubscribe"}):
        assert launcher.http.get("/whatsapp", params={**good, **wrong}).status_code == 403
    assert launcher.http.get("/whatsapp").status_code == 403
    assert VERIFICATION not in launcher.log()


def test_without_its_variables_the_route_is_not_there(graph: Graph) -> None:
    with launch(graph, WHATSAPP_APP_SECRET="") as launcher:
        assert deliver(launcher, connect("x", SDP)).status_code == 404
        launcher.wait_for_log("WhatsApp Integration: MISSING_CONFIG (required: WHATSAPP_APP_SECRET; reason: Missing ")
        refused = launcher.http.post("/whatsapp").json()["error"]
        assert refused["code"] == "not_served"
        assert "WHATSAPP_APP_SECRET" in refused["message"]


def test_without_the_verification_token_meta_can_not_verify(graph: Graph) -> None:
    with launch(graph, WHATSAPP_WEBHOOK_VERIFICATION_TOKEN="") as launcher:
        launcher.wait_for_log("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN is not set")
        for query in ({}, {"hub.mode": "subscribe", "hub.verify_token": "", "hub.challenge": "1"}):
            assert launcher.http.get("/whatsapp", params=query).status_code == 403
        assert launcher.http.post("/whatsapp").status_code == 401


def test_no_secret_is_in_the_log(launcher: Launcher, hanging: Launcher) -> None:
    for running in (launcher, hanging):
        deliver(running, connect(call_id(), "garbage"))
        deliver(running, b"{}", x_hub_signature_256=sign(b"{}", "another"))
        running.http.get("/whatsapp", params={"hub.mode": "subscribe", "hub.verify_token": VERIFICATION})
        running.wait_for_log("WhatsApp call declined: malformed")
        running.wait_for_log("GET /whatsapp 200")
    for log in (launcher.log(), hanging.log()):
        assert not [secret for secret in (TOKEN, SECRET, VERIFICATION) if secret in log]
        assert NUMBER not in log
