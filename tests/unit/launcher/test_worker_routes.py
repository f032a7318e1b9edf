"""What the launcher reads of a request before a worker answers it, and of the answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from pipecat_base.config.settings import Settings
from pipecat_base.errors import Refusal
from pipecat_base.launcher.worker_routes import WorkerRoutes, _peer_named_in
from pipecat_base.server.error_responses import refuse
from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.ipc.messages import SessionEnded, StateEntered
from tests.support.workers import HandedOver, PoolOfUnstarted, UnstartedWorker, pool_of


@pytest.mark.parametrize(
    ("body", "pc_id"),
    [
        (b'{"pc_id": "a-1", "sdp": "", "type": "offer"}', "a-1"),
        (b'\xef\xbb\xbf{"pc_id": "\\u00fc"}\r\n', "ü"),
        (b'{"pc_id": ""}', None),
        (b'{"pc_id": null}', None),
        (b'{"pc_id": 5}', None),
        (b'{"pc_id": ["a"]}', None),
        (b'{"sdp": "pc_id"}', None),
        (b'{"request_data": {"pc_id": "a"}}', None),
        (b'["pc_id"]', None),
        (b'"pc_id"', None),
        (b'{"sdp": ""}', None),
        (b"", None),
        (b'{"pc_id": "a"', None),
        (b'{"pc_id": "a"}\xff', None),
        (b'{"pc_id": NaN}', None),
        (b'{"pc_id": "a", "x": ' + b"[" * 100_000, None),
        (b'{"pc_id": "a", "x": [' + b"0," * 200_000 + b"0]}", "a"),
    ],
)
def test_the_connection_that_a_body_names_is_read_and_nothing_is_refused_yet(body: bytes, pc_id: str | None) -> None:
    assert asyncio.run(_peer_named_in(body)) == pc_id


class Answer:
    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""

    @property
    def code(self) -> Any:
        return json.loads(self.body)["error"]["code"]


async def request(
    pool: PoolOfUnstarted, method: str, path: str, content: Any, headers: dict[str, str] | None = None
) -> Answer:
    app = Starlette(routes=WorkerRoutes(pool, Settings(), None).routes())
    app.add_exception_handler(Refusal, cast(Any, refuse))
    body = json.dumps(content).encode()
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])
    answer = Answer()

    async def receive() -> Any:
        return next(messages, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status, answer.headers = message["status"], dict(message["headers"])
        else:
            answer.body += message.get("body", b"")

    named = {"x-daily-session-id": "s", "content-length": str(len(body)), **(headers or {})}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "scheme": "http",
        "client": ("10.0.0.1", 5),
        "server": ("10.0.0.2", 80),
    }
    await app(scope, receive, send)
    return answer


async def answered(worker: UnstartedWorker, content: Any, status: int = 200) -> HandedOver:
    handed = await asyncio.wait_for(worker.requests.get(), 1)
    await handed.read()
    await handed.answer(content, status)
    return handed


OFFER = {"sdp": "o", "type": "offer"}
WAITING = StateEntered("s", "waiting", "webrtc", 1)


def test_later_offers_and_candidates_of_a_connection_reach_the_worker_that_answered_the_first() -> None:
    async def scene() -> None:
        worker, control_worker = UnstartedWorker(), UnstartedWorker()
        with pool_of(worker) as pool:
            pool._revision.control_worker = control_worker
            pool.peers_ice_servers = no_servers  # type: ignore[method-assign]
            offering = asyncio.ensure_future(request(pool, "POST", "/api/offer", OFFER))
            handed = await answered(worker, {"sdp": "a", "type": "answer", "pc_id": "p-1"})
            worker.say(WAITING)
            assert handed.request.ice == []
            assert handed.request.session_id == "s"
            assert json.loads((await offering).body)["sdp"] == "a"
            for method, path, other in (("PATCH", "/api/offer", "none"), ("POST", "/api/offer", "s")):
                content = {**OFFER, "pc_id": "p-1", "candidates": []}
                headers = {"x-daily-session-id": other}
                asking = asyncio.ensure_future(request(pool, method, path, content, headers))
                assert (await answered(worker, {})).request.session_id is None
                assert (await asking).status == 200
            lease = pool.lease_of_peer("p-1")
            assert lease is not None
            assert lease.offers == 2
            control_worker.die()

    async def no_servers() -> list[Any]:
        return []

    asyncio.run(scene())


@pytest.mark.parametrize(
    "answer", [b"[", b"[]", b"null", b'{"pc_id": 5}', b"[" * 100_000, b'{"pc_id": "p"}' + b" " * 999_999]
)
def test_an_answer_that_names_no_connection_is_passed_on_as_it_is(answer: bytes) -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            offering = asyncio.ensure_future(request(pool, "POST", "/api/offer", OFFER))
            await answered(worker, answer)
            assert (await offering).body == answer
            assert pool._peers == {}
            worker.say(SessionEnded("s", 1))
            assert await pool.registry.until_empty(1)

    asyncio.run(scene())


def test_an_offer_that_is_refused_counts_for_no_session() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            async with pool.reserve(SessionRequest("s", TransportKind.WEBRTC)) as lease:
                await lease.take_worker()
                offering = asyncio.ensure_future(request(pool, "POST", "/api/offer", {"sdp": ""}))
                handed = await asyncio.wait_for(worker.requests.get(), 1)
                assert lease.offers == 1, "a reload does not end it meanwhile"
                await handed.read()
                await handed.answer({"error": {"code": "malformed"}}, 400)
                assert (await offering).status == 400
                assert lease.offers == 0

    asyncio.run(scene())


def test_candidates_for_a_connection_of_no_worker_are_for_an_unknown_peer() -> None:
    async def scene() -> None:
        with pool_of() as pool:
            answer = await request(pool, "PATCH", "/api/offer", {"pc_id": "p-1", "candidates": []})
            assert (answer.status, answer.code) == (404, "unknown_peer")

    asyncio.run(scene())


def test_a_bot_whose_process_dies_has_failed_and_its_caller_gets_the_report() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            asking = asyncio.ensure_future(request(pool, "POST", "/bot", {}))
            await worker.requests.get()
            worker.say(StateEntered("s", "running", "plain", 1))
            worker.die()
            answer = await asking
            assert answer.headers[b"x-pipecat-session-outcome"] == b"failed"
            assert answer.headers[b"x-daily-session-id"] == b"s"
            assert answer.code == "bot_failed"
            assert len(pool.registry) == 0, "its slot is free before the answer"

    asyncio.run(scene())


@pytest.mark.parametrize("transport", ["", "webrtc"])
def test_a_bot_that_gets_no_process_is_refused(transport: str) -> None:
    async def scene() -> None:
        with pool_of() as pool:
            answer = await request(pool, "POST", "/bot", {}, {"x-daily-transport-type": transport})
            assert (answer.status, answer.code) == (503, "no_process")
            assert await pool.registry.until_empty(1)

    asyncio.run(scene())


def test_a_session_that_ended_whose_worker_does_not_answer_is_answered_with_its_report() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            asking = asyncio.ensure_future(request(pool, "POST", "/bot", {}))
            await worker.requests.get()
            worker.say(SessionEnded.of("s", 1, Report(Outcome.COMPLETED, "", 1.0), None))
            answer = await asking
            assert (answer.status, answer.headers[b"x-pipecat-session-outcome"]) == (200, b"completed")

    asyncio.run(scene())
