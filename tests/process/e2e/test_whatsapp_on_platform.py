"""WhatsApp as the platform drives it: ``POST /bot`` waits, and Meta's webhooks come with the id of its session."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.support.browser_peer import RATE
from tests.support.graph_api import VARIABLES, Caller, Graph, call_id, connect, deliver, sign, terminate, webhook
from tests.support.launchers import Launcher, measured, until
from tests.support.offers import NO_ICE, SDP, play
from tests.support.tones import pitch

FLOW = "nodes: [s3cr3t-flow]"
OUTCOME = "x-pipecat-session-outcome"


def launch(graph: Graph, do: str, **variables: Any) -> Launcher:
    found = {**NO_ICE, **VARIABLES, "DRAIN_NOTICE": "0", "MAX_SESSIONS": "1", **graph.variables, "DO": do}
    return Launcher("whatsapp", **{**found, **variables})


@pytest.fixture(scope="module")
def graph() -> Iterator[Graph]:
    with Graph() as graph:
        yield graph


@pytest.fixture(scope="module")
def hanging(graph: Graph) -> Iterator[Launcher]:
    """Its bot stays until it is ended; there is one slot."""
    with launch(graph, "hang") as launcher:
        yield launcher


@contextlib.contextmanager
def waiting(launcher: Launcher, session_id: str, *, arrives: bool = True, **headers: str) -> Iterator[Future[Any]]:
    """``POST /bot`` of the platform; ``arrives``: its session waits before the block begins."""

    def post() -> tuple[httpx.Response, float]:
        envelope = {"body": {"of": "the platform"}, "flow_config": FLOW}
        fields = {"x_daily_session_id": session_id, "x_daily_transport_type": "webrtc", "x_pcc_start_envelope": "1"}
        response = launcher.post(envelope, **fields, **headers)
        return response, time.monotonic()

    until(launcher.is_ready, "a free slot")
    with ThreadPoolExecutor() as pool:
        answering = pool.submit(post)
        if arrives:
            until(lambda: not launcher.is_ready(), "the slot to be taken")
        try:
            yield answering
        except BaseException:
            launcher.kill()
            raise


def answer_of(answering: Future[Any], *outcomes: str) -> None:
    response: httpx.Response = answering.result(timeout=15)[0]
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers[OUTCOME] in outcomes


def test_a_call_takes_the_waiting_session_over_with_its_id_flow_and_only_slot(graph: Graph) -> None:
    async def scenario() -> None:
        with launch(graph, "echo") as launcher:
            async with Caller(launcher, graph) as caller:
                with waiting(launcher, caller.id) as answering:
                    assert (await caller.call()).headers["x-daily-session-id"] == caller.id
                    assert pitch(await caller.hear(0.5), RATE) == pytest.approx(440, abs=5)
                    (said,) = launcher.said()
                    assert said["type"] in ("SmallWebRTCRunnerArguments", "SmallWebRTCSessionArguments")
                    assert (said["session"], said["id"], said["flow"]) == (caller.id, caller.id, FLOW)
                    assert said["body"] == "WhatsAppConnectCall"
                    assert not answering.done()
                    assert not launcher.is_ready()
                    await asyncio.to_thread(deliver, launcher, terminate(caller.id), x_daily_session_id=caller.id)
                    await asyncio.to_thread(answer_of, answering, "completed", "disconnected")
            assert graph.actions(caller.id) == ["pre_accept", "accept"]
            assert "s3cr3t-flow" not in launcher.told_of_calls()
            assert launcher.stop() == 0

    play(scenario)


def test_a_bot_that_ends_answers_the_request_and_the_call_is_ended_at_meta(graph: Graph) -> None:
    for do, status in (("return", 200), ("raise", 500)):
        with launch(graph, do) as launcher:
            call = call_id()
            with waiting(launcher, "ends") as answering:
                deliver(launcher, connect(call, SDP), x_daily_session_id="ends")
                assert answering.result(timeout=15)[0].status_code == status
            graph.wait_for(call, "terminate")
            until(launcher.is_ready, "a free slot")


def test_the_session_s_budget_ends_the_call(hanging: Launcher, graph: Graph) -> None:
    call = call_id()
    with waiting(hanging, "budget", x_pcc_max_session_seconds="1") as answering, measured() as seconds:
        deliver(hanging, connect(call, SDP), x_daily_session_id="budget", x_pcc_max_session_seconds="500")
        answer_of(answering, "expired")
        assert 0.9 < seconds() < 10
    graph.wait_for(call, "terminate")


def test_the_webhook_may_come_as_soon_as_the_request(graph: Graph) -> None:
    # Its arguments are still being made, and the modules imported.
    for _ in range(3):
        with launch(graph, "return") as launcher:
            call = call_id()
            with waiting(launcher, "early", arrives=False) as answering:
                time.sleep(0.05)
                deliver(launcher, connect(call, SDP), x_daily_session_id="early")
                answer_of(answering, "completed")
            (said,) = (line for line in launcher.said() if "id" in line)
            assert (said["session"], said["id"], said["flow"]) == ("early", call, FLOW)


FAILING: dict[str, Any] = {
    "no signature": (connect(call_id(), SDP), {"x-hub-signature-256": ""}),
    "a wrong signature": (connect(call_id(), SDP), {"x_hub_signature_256": sign(b"{}")}),
    "no JSON": (b"{not json", {}),
    "no call": (webhook({"messages": [{"from": "1", "type": "text"}]}), {}),
    "another object": (b'{"object": "page", "entry": []}', {}),
    "a call of the business": (connect(call_id(), SDP, direction="BUSINESS_INITIATED"), {}),
    "the end of a call": (terminate(call_id()), {}),
    "an unusable offer": (connect(call_id(), "garbage"), {}),
    "odd fields": (connect(call_id(), SDP, timestamp=5), {}),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_webhook_that_brings_no_call_answers_the_request_at_once(hanging: Launcher, name: str) -> None:
    body, headers = FAILING[name]
    before = len(hanging.said())
    session_id = name.replace(" ", "-")
    with waiting(hanging, session_id) as answering, measured() as seconds:
        deliver(hanging, body, x_daily_session_id=session_id, **headers)
        answer_of(answering, "cancelled")
        assert seconds() < 10
    assert len(hanging.said()) == before


def test_a_webhook_of_another_session_leaves_the_request_waiting(hanging: Launcher) -> None:
    with waiting(hanging, "mine") as answering:
        for headers in ({"x_daily_session_id": "yours"}, {"x_daily_session_id": "yours", "x_hub_signature_256": "x"}):
            deliver(hanging, webhook({"statuses": []}), **headers)
        time.sleep(0.3)
        assert not answering.done()
        deliver(hanging, webhook({"statuses": []}), x_daily_session_id="mine")
        answer_of(answering, "cancelled")


def test_a_call_that_meta_does_not_let_us_answer_answers_the_request() -> None:
    with Graph() as graph, launch(graph, "hang") as launcher:
        graph.reply = lambda request: (503, b"<html>unavailable</html>")
        call = call_id()
        with waiting(launcher, "refused") as answering:
            deliver(launcher, connect(call, SDP), x_daily_session_id="refused")
            answer_of(answering, "cancelled")
        assert graph.actions(call) == ["pre_accept", "reject"]
        assert launcher.said() == []
        launcher.wait_for_log("| refused - WhatsApp call failed: pre_accept: ")


def test_a_caller_who_hangs_up_while_the_call_is_answered_ends_the_session() -> None:
    with Graph() as graph, launch(graph, "hang") as launcher, ThreadPoolExecutor() as pool:
        asked = []

        def slowly(request: dict[str, Any]) -> tuple[int, bytes]:
            asked.append(request)
            time.sleep(1)
            return 200, b'{"success": true}'

        graph.reply = slowly
        call = call_id()
        with waiting(launcher, "early-end") as answering:
            ringing = pool.submit(deliver, launcher, connect(call, SDP), x_daily_session_id="early-end")
            until(lambda: asked, "the request to answer")
            deliver(launcher, terminate(call), x_daily_session_id="early-end")
            answer_of(answering, "disconnected")
            assert ringing.result().status_code == 200
        assert launcher.said() == []


def test_the_wait_for_an_offer_does_not_end_a_call_that_is_being_answered() -> None:
    with Graph() as graph, launch(graph, "return", WEBRTC_OFFER_TIMEOUT="4") as launcher:

        def slowly(request: dict[str, Any]) -> tuple[int, bytes]:
            time.sleep(2.5)
            return 200, b'{"success": true}'

        graph.reply = slowly
        with waiting(launcher, "late") as answering:
            deliver(launcher, connect(call_id(), SDP), x_daily_session_id="late")
            answer_of(answering, "completed")


def test_a_call_that_is_delivered_again_during_the_call_and_after_it_changes_nothing(
    hanging: Launcher, graph: Graph
) -> None:
    body = connect(call := call_id(), SDP)
    with waiting(hanging, "again") as answering:
        for _ in range(2):
            assert deliver(hanging, body, x_daily_session_id="again").status_code == 200
        graph.wait_for(call, "accept")
        until(lambda: any(line.get("id") == call for line in hanging.said()), "the bot")
        deliver(hanging, b"{broken", x_daily_session_id="again")  # nor does a webhook that fails
        time.sleep(0.3)
        assert not answering.done()
        deliver(hanging, terminate(call), x_daily_session_id="again")
        answer_of(answering, "disconnected")
    with waiting(hanging, "again") as answering:  # the platform uses the id again, and Meta delivers the call again
        deliver(hanging, body, x_daily_session_id="again")
        answer_of(answering, "cancelled")
    assert sum(line.get("id") == call for line in hanging.said()) == 1


def test_of_two_calls_in_one_webhook_one_takes_the_session_over(graph: Graph) -> None:
    with launch(graph, "hang", MAX_SESSIONS="2", PIPECAT_GATEWAY="1") as launcher:
        calls = [call_id(), call_id()]
        fields = {"from": "16315553601", "event": "connect", "session": {"sdp_type": "offer", "sdp": SDP}}
        with ThreadPoolExecutor() as pool:
            headers = {"x_daily_session_id": "first", "x_daily_transport_type": "webrtc"}
            answering = pool.submit(lambda: launcher.post({}, **headers))
            until(lambda: launcher.http.get("/sessions/first").status_code == 200, "the session")
            deliver(
                launcher, webhook({"calls": [{"id": call, **fields} for call in calls]}), x_daily_session_id="first"
            )
            said = until(lambda: (s := [x for x in launcher.said() if "id" in x]) and len(s) == 2 and s, "two bots")
            assert {line["id"] for line in said} == set(calls)
            assert [line["id"] for line in said if line["session"] == "first"] == calls[:1]
            for call in calls:
                deliver(launcher, terminate(call))
            assert answering.result(timeout=15).status_code == 200


def test_without_a_waiting_request_a_call_is_a_session_of_its_own(hanging: Launcher, graph: Graph) -> None:
    call = call_id()
    until(hanging.is_ready, "a free slot")
    deliver(hanging, connect(call, SDP), x_daily_session_id="alone")
    until(lambda: any(line.get("id") == call for line in hanging.said()), "the bot")
    (said,) = (line for line in hanging.said() if line.get("id") == call)
    assert (said["session"], said["flow"]) == ("alone", None)
    deliver(hanging, terminate(call))
    until(hanging.is_ready, "a free slot")


def test_at_the_shutdown_s_deadline_the_call_is_ended_at_meta(graph: Graph) -> None:
    with launch(graph, "hang", SHUTDOWN_TIMEOUT="1") as launcher:
        call = call_id()
        with waiting(launcher, "drained") as answering:
            deliver(launcher, connect(call, SDP), x_daily_session_id="drained")
            until(lambda: launcher.said(), "the bot")
            launcher.signal()
            answer_of(answering, "drained")
        assert launcher.wait() == 0
        assert graph.actions(call) == ["pre_accept", "accept", "terminate"]
