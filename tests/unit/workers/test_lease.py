"""A session in a worker: how it begins and ends, whatever the worker does. The worker is the test."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketState

from pipecat_base.errors import AtCapacity, Malformed, NoProcess, NotReached, NotSupported, Refusal, TooLarge
from pipecat_base.sessions.outcome import CLOSE_CODES, MESSAGES, Outcome, Report
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import Caller, MoqServer, NoTransport, TransportKind, WhatsAppCall
from pipecat_base.workers import lease as leases
from pipecat_base.workers.ipc.messages import (
    FILE,
    MOQ,
    Cancel,
    Close,
    Exited,
    Noted,
    Serve,
    SessionEnded,
    StateEntered,
)
from pipecat_base.workers.lease import WorkerLease
from pipecat_base.workers.websocket_handoff import EXTENSION
from tests.support.workers import HandedOver, PoolOfUnstarted, UnstartedWorker, pool_of

ADMITTED, RUNNING = StateEntered("s", "admitted", "plain", 1), StateEntered("s", "running", "plain", 1)
COMPLETED = SessionEnded.of("s", 1, Report(Outcome.COMPLETED, "Done.", 2.5), None)
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/bot",
    "raw_path": b"/bot",
    "query_string": b"",
    "headers": [(b"content-length", b"2")],
    "scheme": "http",
    "client": ("10.0.0.1", 5),
    "server": ("10.0.0.2", 80),
}


class Call:
    """The caller of a request that may begin the session "s"."""

    def __init__(self, pool: PoolOfUnstarted, **options: Any) -> None:
        self.pool = pool
        self.options = options
        self.answer: list[Any] = []
        self.slots_at_answer: list[int] = []
        self.has_left = asyncio.Event()
        self.lease: WorkerLease | None = None

    async def receive(self) -> Any:
        await self.has_left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.slots_at_answer.append(len(self.pool.registry))
        self.answer.append(message.get("status") or message.get("body"))

    async def call(self) -> None:
        request = SessionRequest("s", TransportKind.PLAIN, **self.options)
        self.lease = await self.pool.begin(request)
        await self.lease.forward(SCOPE, b"{}", self.receive, self.send)


Scene = Callable[[PoolOfUnstarted, Call, "asyncio.Task[None]"], Awaitable[None]]


def play(scene: Scene, workers: int = 1, shared: bool = False, **options: Any) -> PoolOfUnstarted:
    """Call, and play the scene with the workers; each slot must be free at the end."""

    async def whole() -> PoolOfUnstarted:
        with pool_of(*(UnstartedWorker() for _ in range(workers)), shared=shared) as pool:
            caller = Call(pool, **options)
            calling = asyncio.ensure_future(caller.call())
            async with asyncio.timeout(5):
                await scene(pool, caller, calling)
                await asyncio.wait({calling})
                assert await pool.registry.until_empty(2), "the slot is held"
            calling.exception()  # which the scene has judged
            assert not pool.busy()
            return pool

    return asyncio.run(whole())


def report_of(pool: PoolOfUnstarted) -> Report:
    report = pool.registry.report("s")
    assert report is not None
    return report


async def begun(pool: PoolOfUnstarted, worker: UnstartedWorker) -> HandedOver:
    handed = await worker.requests.get()
    worker.say(ADMITTED, RUNNING)
    while (session := pool.registry.get("s")) is None or session.state is not SessionState.RUNNING:
        await pool.registry.changed()
    return handed


def test_a_session_begins_and_ends_as_its_worker_reports() -> None:
    states: list[tuple[str, str]] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        pool.registry.on_change(lambda session: states.append((session.state.value, session.transport.value)))
        handed = await worker.requests.get()
        request, body = await handed.read()
        assert (bytes(request.target), body) == (b"/bot", b"{}")
        assert (handed.request.session_id, handed.request.client) == ("s", ["10.0.0.1", 5])
        assert states == []
        worker.say(StateEntered("s", "admitted", "daily", 1), StateEntered("s", "running", "daily", 1))
        worker.say(COMPLETED)
        await handed.answer({})
        await calling
        assert caller.answer == [200, b"{}", b""]
        assert caller.slots_at_answer[0] == 0

    pool = play(scene)
    assert report_of(pool) == Report(Outcome.COMPLETED, "Done.", 2.5)
    assert [past.transport for past in pool.registry.past()] == [TransportKind.DAILY]
    assert states == [(state, "daily") for state in ("admitted", "admitted", "running", "ended")]
    assert pool.events == [("process_wait", "s")]


def test_a_request_that_begins_no_session_leaves_nothing_behind() -> None:
    heard: list[Session] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        pool.registry.on_change(heard.append)
        worker = pool.ready_workers[0]
        handed = await worker.requests.get()
        worker.say(SessionEnded("s", 1))
        await handed.answer({"error": {"code": "malformed"}}, 400)
        await calling
        assert caller.answer[0] == 400
        assert caller.slots_at_answer[0] == 0
        assert worker.calls_run == 0

    pool = play(scene)
    assert (heard, pool.registry.past(), pool.events) == ([], [], [])


def test_another_worker_is_tried_if_the_first_died_before_the_session_began() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        first, second = pool.ready_workers
        await first.requests.get()
        first.die()
        handed = await begun(pool, second)
        assert (await handed.read())[1] == b"{}"
        second.say(COMPLETED)
        await handed.answer({})
        await calling
        assert caller.answer[0] == 200

    assert report_of(play(scene, workers=2)).outcome is Outcome.COMPLETED


def test_a_worker_that_died_while_its_session_took_it_is_replaced_too() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        first, second = pool.ready_workers
        first.die()  # and the launcher does not know yet
        handed = await begun(pool, second)
        second.say(COMPLETED)
        await handed.answer({})
        await calling

    assert report_of(play(scene, workers=2)).outcome is Outcome.COMPLETED


def test_no_more_than_three_workers_are_tried() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        for worker in tuple(pool.ready_workers)[:3]:
            await worker.requests.get()
            worker.die(Exited(worker.pid, 9))
        with pytest.raises(NotReached):
            await calling
        assert len(pool.ready_workers) == 1

    pool = play(scene, workers=4)
    assert report_of(pool) == Report(Outcome.FAILED, "The bot's process was killed by SIGKILL.", 0.0)
    assert pool.events == [("failure", "s"), ("process", "s")]


def test_a_death_after_the_session_began_ends_it_and_no_other_worker_is_tried() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        first, second = pool.ready_workers
        await begun(pool, first)
        first.die(Exited(first.pid, 11, 0.5, 100))
        with pytest.raises(NotReached):
            await calling
        assert second.requests.empty()

    pool = play(scene, workers=2)
    report = report_of(pool)
    assert (report.outcome, report.message) == (Outcome.FAILED, "The bot's process was killed by SIGSEGV.")
    assert [name for name, _ in pool.events] == ["process_wait", "failure", "process"]


def test_a_connection_that_breaks_off_in_a_living_worker_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DEATH_NOTICE_SECONDS", 0.05)

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        first, second = pool.ready_workers
        (await first.requests.get()).sock.close()
        with pytest.raises(NotReached):
            await calling
        assert second.requests.empty()
        first.say(SessionEnded("s", 1))

    play(scene, workers=2)


def test_without_a_worker_no_session_begins_and_the_refusal_is_kept() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        with pytest.raises(NoProcess):
            await calling

    (past,) = play(scene, workers=0).registry.past()
    assert (past.refusal, past.report.message) == (NoProcess, "No process was ready.")


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_report_of_any_outcome_is_kept(outcome: Outcome) -> None:
    report = Report(outcome, "Why.", 1.0)

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        handed = await begun(pool, worker)
        worker.say(SessionEnded.of("s", 1, report, None))
        await handed.answer({})

    assert report_of(play(scene)) == report


def test_an_invalid_report_is_a_failure() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        worker.say(SessionEnded("s", 1, "triumph", "!", 1.0))

    report = report_of(play(scene))
    assert (report.outcome, report.message) == (Outcome.FAILED, "The bot's process sent an invalid report.")


def test_a_session_that_its_worker_refused_is_remembered_with_the_refusal() -> None:
    refusal = TooLarge("The body is too large.", field="body")

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        handed = await worker.requests.get()
        report = Report(Outcome.FAILED, refusal.message, 0.0)
        worker.say(ADMITTED, SessionEnded.of("s", 1, report, refusal))
        await handed.answer(refusal.body(), refusal.status)
        await calling
        assert caller.answer[0] == 413
        assert caller.lease is not None
        kept = caller.lease.session.refusal
        assert kept is not None
        assert (kept.message, kept.field) == (refusal.message, "body")

    (past,) = play(scene).registry.past()
    assert (past.refusal, past.report.message) == (TooLarge, refusal.message)


@pytest.mark.parametrize(
    ("values", "kind"), [(["at_capacity", None], AtCapacity), (["unheard_of", None], None), ([], None), (None, None)]
)
def test_a_refusal_is_counted_for_the_session_of_its_lease(values: Any, kind: Any) -> None:
    refusals: list[Refusal] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        handed = await worker.requests.get()
        assert caller.lease is not None
        caller.lease.on_refusal = refusals.append
        worker.say(SessionEnded("s", 1, refusal=values))
        await handed.answer({}, 429)
        await calling

    play(scene)
    assert [(type(refusal), refusal.session_id) for refusal in refusals] == ([(kind, "s")] if kind else [])


def test_the_number_of_remembered_uploads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "MAX_UPLOADS", 3)
    deleted: list[list[str]] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        monkeypatch.setattr(pool._revision, "delete", deleted.append)
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        worker.say(*(Noted("s", FILE, [f"{number}a", f"{number}b"]) for number in range(3)))
        worker.die()

    play(scene)
    assert deleted == [["0a", "0b", "1a"]]


def test_uploads_are_not_deleted_if_the_worker_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    deleted: list[list[str]] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        monkeypatch.setattr(pool._revision, "delete", deleted.append)
        worker = pool.ready_workers[0]
        handed = await begun(pool, worker)
        worker.say(Noted("s", FILE, ["a"]), COMPLETED)
        await handed.answer({})
        await calling

    play(scene)
    assert deleted == []


@pytest.mark.parametrize("status", [200, 400, 500])
def test_a_worker_that_does_not_say_whether_a_session_has_begun_is_spoiled_and_its_slot_freed(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "NEWS_SECONDS", 0.1)
    workers: list[UnstartedWorker] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        workers.append(worker)
        await (await worker.requests.get()).answer({}, status)
        answered_at = time.monotonic()
        await calling
        assert caller.answer[0] == status
        assert await pool.registry.until_empty(1)
        assert 0.09 < time.monotonic() - answered_at < 1
        worker.say(ADMITTED, COMPLETED)  # too late
        await asyncio.sleep(0.02)
        assert worker.messages == [Cancel("s", "cancelled"), Close()]

    pool = play(scene)
    assert (workers[0].is_spoiled, workers[0].calls, pool.registry.past()) == (True, 0, [])


def test_a_worker_may_say_shortly_after_its_response_that_a_session_has_begun() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await (await worker.requests.get()).answer({})
        await asyncio.sleep(0.05)
        worker.say(ADMITTED, RUNNING)
        await calling
        assert not worker.is_spoiled
        worker.say(COMPLETED)

    assert report_of(play(scene)).outcome is Outcome.COMPLETED


@pytest.mark.parametrize("number", [-1, 0, 2])
def test_messages_with_the_number_of_another_request_are_ignored(number: int) -> None:
    states: list[str] = []

    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        pool.registry.on_change(lambda session: states.append(session.state.value))
        handed = await worker.requests.get()
        assert handed.request.number == 1
        others = [SessionEnded("s", number), SessionEnded("s", number, "failed")]
        worker.say(StateEntered("s", "waiting", "webrtc", number), *others)
        await asyncio.sleep(0.02)
        assert states == []
        worker.say(ADMITTED, RUNNING, *others)
        await asyncio.sleep(0.02)
        assert states == ["admitted", "admitted", "running"]
        worker.say(COMPLETED)
        await handed.answer({})

    pool = play(scene)
    assert report_of(pool) == Report(Outcome.COMPLETED, "Done.", 2.5)
    assert states[3:] == ["ended"]


# The session's end.


def test_a_cancelled_session_ends_as_its_worker_then_reports() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        handed = await begun(pool, worker)
        pool.registry.cancel("s", Outcome.DRAINED)
        while not worker.messages:
            await asyncio.sleep(0.01)
        assert worker.messages == [Cancel("s", "drained")]
        worker.say(SessionEnded.of("s", 1, Report(Outcome.DRAINED, "Drained.", 1.0), None))
        await handed.answer({})
        await calling
        assert not worker.is_killed

    assert report_of(play(scene)) == Report(Outcome.DRAINED, "Drained.", 1.0)


def test_a_worker_that_ignores_its_sessions_end_is_killed() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        pool.registry.cancel("s", Outcome.CANCELLED)
        with pytest.raises(NotReached):
            await calling
        assert worker.is_killed

    pool = play(scene)
    assert (report_of(pool).outcome, report_of(pool).message) == (Outcome.CANCELLED, MESSAGES[Outcome.CANCELLED])
    assert ("failure", "s") not in pool.events


@pytest.mark.parametrize("shared", [True, False])
def test_a_worker_that_ignores_a_sessions_end_and_runs_others_is_killed_unless_it_is_the_only_one(shared: bool) -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        async with pool.reserve(SessionRequest("other", TransportKind.PLAIN)) as other:
            worker.add("other", other)
            worker.say(StateEntered("other", "admitted", "plain", 0))
            pool.registry.cancel("s", Outcome.CANCELLED)
            with pytest.raises(NotReached):
                await calling
            assert worker.is_killed is not shared
            assert pool.registry.get("s") is None
            if shared:
                worker.say(SessionEnded.of("s", 1, Report(Outcome.COMPLETED, "Late.", 9.0), None))
                await asyncio.sleep(0.02)
            else:
                assert worker.calls_at_end == 2
                assert other.over.result() == Report(Outcome.FAILED, f"The bot's process {killed}.", 0.0)
            worker.remove("other", other)

    killed = "was killed, as it ignored its session's end, and with it 1 other call"
    pool = play(scene, shared=shared)
    assert (report_of(pool).outcome, report_of(pool).message) == (Outcome.CANCELLED, MESSAGES[Outcome.CANCELLED])


def test_a_session_whose_worker_does_not_end_it_in_time_is_ended() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        with pytest.raises(NotReached):
            await calling
        assert worker.is_killed
        assert worker.messages == [], "it enforces the limit itself, unless its event loop is blocked"

    report = report_of(play(scene, max_seconds=0.05))
    assert (report.outcome, report.message) == (Outcome.EXPIRED, MESSAGES[Outcome.EXPIRED])
    assert 0.2 <= report.seconds < 2


def test_a_session_that_is_cancelled_while_it_waits_for_a_worker_has_a_report() -> None:
    async def scene() -> None:
        with pool_of() as pool:
            ready = asyncio.Event()

            async def take_worker(lease: WorkerLease) -> Any:
                ready.set()
                await lease.session.stop
                raise NoProcess("The session was ended before a process was ready.")

            pool._take_worker = take_worker  # type: ignore[method-assign]
            caller = Call(pool)
            calling = asyncio.ensure_future(caller.call())
            await ready.wait()
            pool.registry.cancel("s", Outcome.DISCONNECTED)
            with pytest.raises(NoProcess):
                await calling
            assert await pool.registry.until_empty(1)
            (past,) = pool.registry.past()
            assert (past.report.outcome, past.refusal) == (Outcome.DISCONNECTED, None)

    asyncio.run(scene())


def test_a_caller_who_leaves_is_reported_to_the_worker_only_once_the_session_has_begun() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        handed = await worker.requests.get()
        await handed.read()
        caller.has_left.set()
        handed.sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.sock_recv(handed.sock, 10), 0.05)
        worker.say(ADMITTED)
        assert await asyncio.wait_for(loop.sock_recv(handed.sock, 10), 1) == b""
        worker.say(SessionEnded.of("s", 1, Report(Outcome.DISCONNECTED, "", 0.0), None))
        handed.sock.close()
        await calling
        assert caller.answer == []

    assert report_of(play(scene)).outcome is Outcome.DISCONNECTED


def test_an_answer_that_does_not_come_after_the_sessions_end_is_not_waited_for_forever() -> None:
    async def scene(pool: PoolOfUnstarted, caller: Call, calling: Any) -> None:
        worker = pool.ready_workers[0]
        await begun(pool, worker)
        worker.say(COMPLETED)
        with pytest.raises(NotReached):
            await calling

    assert report_of(play(scene)).outcome is Outcome.COMPLETED


# Requests of the launcher's own.


def held(pool: PoolOfUnstarted) -> AbstractAsyncContextManager[WorkerLease]:
    caller = Caller("10.0.0.1", "00-aa-bb-01")
    return pool.reserve(SessionRequest("s", TransportKind.MOQ, caller=caller))


def test_a_session_that_the_gateway_starts_is_described_to_the_worker() -> None:
    served: list[Any] = []

    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            async with held(pool) as lease:
                server = MoqServer("n", 4080, served.append)
                starting = asyncio.ensure_future(lease.start(server, {"a": "ü"}, flow_config="f"))
                handed = await worker.requests.get()
                request, body = await handed.read()
                assert (handed.request.is_internal, handed.request.session_id) == (True, "s")
                assert (request.method, request.target) == (b"POST", b"/sessions")
                assert json.loads(body) == {
                    "transport": {"class": "MoqServer", "namespace": "n", "port": 4080},
                    "body": {"a": "ü"},
                    "flow_config": "f",
                    "caller": ["10.0.0.1", "00-aa-bb-01"],
                }
                worker.say(ADMITTED, RUNNING, Noted("s", MOQ, ["ab", "cd"]))
                await handed.answer({}, 202)
                await starting
            assert pool.registry.get("s") is not None, "it runs on after the scope"
            worker.say(COMPLETED)
            assert await pool.registry.until_empty(1)
            assert report_of(pool).outcome is Outcome.COMPLETED

    asyncio.run(scene())
    assert served == [["ab", "cd"]]


def test_a_start_that_the_worker_refuses_is_refused_and_remembered() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            with pytest.raises(Malformed, match="No such body"):
                async with held(pool) as lease:
                    starting = asyncio.ensure_future(lease.start(NoTransport(), {}))
                    await (await worker.requests.get()).answer(Malformed("No such body.", field="body").body(), 400)
                    await starting
            assert await pool.registry.until_empty(1)
            (past,) = pool.registry.past()
            assert (past.refusal, past.report.message) == (Malformed, "No such body.")

    asyncio.run(scene())


def test_a_start_that_the_worker_refuses_after_it_has_admitted_the_session_is_refused() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            with pytest.raises(NotSupported):
                async with held(pool) as lease:
                    starting = asyncio.ensure_future(lease.start(NoTransport(), {}))
                    handed = await worker.requests.get()
                    refusal = NotSupported("No WebRTC here.")
                    ended = SessionEnded.of("s", 1, Report(Outcome.FAILED, refusal.message, 0.0), refusal)
                    worker.say(ADMITTED, ended)
                    await handed.answer(refusal.body(), refusal.status)
                    await starting
            assert await pool.registry.until_empty(1)
            (past,) = pool.registry.past()
            assert past.refusal is NotSupported

    asyncio.run(scene())


def test_a_start_in_a_worker_that_dies_is_tried_again_and_then_refused() -> None:
    async def scene() -> None:
        workers = [UnstartedWorker() for _ in range(3)]
        with pool_of(*workers) as pool:
            with pytest.raises(NotReached):
                async with held(pool) as lease:
                    starting = asyncio.ensure_future(lease.start(NoTransport(), {}))
                    for worker in workers:
                        await worker.requests.get()
                        worker.die()
                    await starting
            assert await pool.registry.until_empty(1)
            assert report_of(pool).outcome is Outcome.FAILED

    asyncio.run(scene())


def test_a_call_is_answered_and_run_and_hung_up_by_its_worker() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()

        async def answered(answer: Any) -> tuple[bytes, bytes]:
            handed = await worker.requests.get()
            request, body = await handed.read()
            if request.target == b"/calls":
                worker.say(ADMITTED)
            await handed.answer(answer)
            return bytes(request.target), body

        with pool_of(worker) as pool:
            async with held(pool) as lease:
                picking_up = asyncio.ensure_future(lease.pick_up(WhatsAppCall({"sdp": "o"}, {"id": "1"})))
                path, body = await answered({"sdp": "answer"})
                assert path == b"/calls"
                call = {"class": "WhatsAppCall", "offer": {"sdp": "o"}, "fields": {"id": "1"}}
                assert json.loads(body) == {"call": call, "max_seconds": None}
                assert await picking_up == "answer"
                assert lease.offers == 1, "or a reload would end the session"
                running = asyncio.ensure_future(lease.run(NoTransport(), None))
                assert (await answered({}))[0] == b"/calls/connect"
                worker.say(RUNNING)
                hanging_up = asyncio.ensure_future(lease.hang_up())
                assert (await answered({}))[0] == b"/calls/hang-up"
                await hanging_up
                worker.say(COMPLETED)
                assert (await running).outcome is Outcome.COMPLETED
                await lease.hang_up()  # too late: the worker is not asked
            await lease.hang_up()
            assert worker.requests.empty()

    asyncio.run(scene())


@pytest.mark.parametrize("answer", [b"null", b"OK", b"[]", b"5", b"{}", b'{"sdp": 5}'])
def test_a_call_that_is_answered_without_an_sdp_is_not_reached(answer: bytes) -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            async with held(pool) as lease:
                picking_up = asyncio.ensure_future(lease.pick_up(WhatsAppCall({"sdp": "o"}, {})))
                await (await worker.requests.get()).answer(answer)
                with pytest.raises(NotReached):
                    await picking_up

    asyncio.run(scene())


def test_a_scope_that_ends_before_its_session_cancels_that_in_the_worker() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        with pool_of(worker) as pool:
            async with held(pool) as lease:
                await lease.take_worker()
            await asyncio.sleep(0.02)
            assert worker.messages[0] == Cancel("s", "failed")
            assert report_of(pool).outcome is Outcome.FAILED

    asyncio.run(scene())


# WebSockets.


class Handoff:
    """A connection of a WebSocket's caller."""

    def __init__(self) -> None:
        self.is_lost = False
        self.ends: list[Any] = []

    def has_disconnected(self) -> bool:
        return self.is_lost

    def give_to(self, serve: Callable[[int, Serve], None], request: Serve, scope: Any) -> None:
        ours, workers = socket.socketpair()
        with ours, workers:
            serve(workers.fileno(), request)

    def abandon(self) -> None:
        self.ends.append("abandoned")

    def finish(self) -> None:
        self.ends.append("finished")

    def close(self, code: int, reason: str, *, was_accepted: bool) -> None:
        self.ends.append((code, reason, was_accepted))


Stream = Callable[[PoolOfUnstarted, Handoff, WebSocket], Awaitable[None]]


def stream(scene: Stream, *, workers: int = 1) -> tuple[PoolOfUnstarted, list[Any]]:
    async def whole() -> tuple[PoolOfUnstarted, list[Any]]:
        with pool_of(*(UnstartedWorker() for _ in range(workers))) as pool:
            handoff = Handoff()
            scope = {**SCOPE, "type": "websocket", "extensions": {EXTENSION: handoff}}
            websocket = WebSocket(scope, receive=connected, send=sent)
            await websocket.receive()
            request = SessionRequest("s", TransportKind.WEBSOCKET)

            async def serve() -> None:
                async with pool.reserve(request, announce=False) as lease:
                    lease.keep()
                    await lease.serve_stream(websocket, "flow")

            serving = asyncio.ensure_future(serve())
            async with asyncio.timeout(5):
                await scene(pool, handoff, websocket)
                try:
                    with contextlib.suppress(NoProcess):
                        await serving
                finally:
                    assert await pool.registry.until_empty(1)
            return pool, handoff.ends

    async def connected() -> Any:
        return {"type": "websocket.connect"}

    async def sent(message: Any) -> None: ...

    return asyncio.run(whole())


def test_a_websocket_is_accepted_and_closed_by_its_worker() -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        worker = pool.ready_workers[0]
        request = (await worker.requests.get()).request
        assert (request.session_id, request.flow_config, request.is_internal) == ("s", "flow", False)
        worker.say(ADMITTED)
        await asyncio.sleep(0.02)
        states = [websocket.application_state]
        worker.say(RUNNING)
        await asyncio.sleep(0.02)
        states.append(websocket.application_state)
        assert states == [WebSocketState.CONNECTING, WebSocketState.CONNECTED]
        worker.say(COMPLETED)

    pool, ends = stream(scene)
    assert (report_of(pool).outcome, ends) == (Outcome.COMPLETED, ["finished"])


def test_a_websocket_that_its_worker_refused_is_left_to_it() -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        worker = pool.ready_workers[0]
        await worker.requests.get()
        worker.say(SessionEnded("s", 1))

    pool, ends = stream(scene)
    assert (pool.registry.past(), ends) == ([], ["abandoned"])


def test_a_websocket_whose_worker_dies_before_it_begins_is_served_by_another() -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        first, second = pool.ready_workers
        await first.requests.get()
        first.die()
        await second.requests.get()
        second.say(ADMITTED, RUNNING)
        await asyncio.sleep(0.02)
        states.append(websocket.application_state)
        second.say(COMPLETED)

    states: list[WebSocketState] = []
    pool, ends = stream(scene, workers=2)
    assert states == [WebSocketState.CONNECTED]
    assert (report_of(pool).outcome, ends) == (Outcome.COMPLETED, ["finished"])


@pytest.mark.parametrize("was_accepted", [True, False])
def test_a_websocket_whose_worker_dies_is_closed_by_the_launcher(was_accepted: bool) -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        worker = pool.ready_workers[0]
        await worker.requests.get()
        worker.say(ADMITTED, *[RUNNING] * was_accepted)
        worker.die()

    pool, ends = stream(scene)
    assert (report_of(pool).outcome, ends) == (Outcome.FAILED, [(*CLOSE_CODES[Outcome.FAILED], was_accepted)])


def test_a_websocket_that_cannot_be_handed_over_holds_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "NEWS_SECONDS", 0.01)

    def give_to(handoff: Handoff, *_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None: ...

    monkeypatch.setattr(Handoff, "give_to", give_to)
    with pytest.raises(OSError, match="Too many"):
        stream(scene)


def test_a_websocket_without_a_worker_is_refused() -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None: ...

    pool, ends = stream(scene, workers=0)
    (past,) = pool.registry.past()
    assert (past.refusal, ends) == (NoProcess, [])


def test_a_websocket_that_is_gone_before_a_worker_is_ready_reaches_none() -> None:
    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        handoff.is_lost = True

    pool, _ = stream(scene)
    assert report_of(pool).outcome is Outcome.DISCONNECTED


def test_a_hang_up_does_not_end_a_blocked_process_that_runs_other_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DISCONNECT_CHECK_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "PING_TIMEOUT_SECONDS", 0.02)

    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        worker = pool.ready_workers[0]
        await worker.requests.get()
        worker.say(ADMITTED, RUNNING)
        other: Any = object()
        worker.add("other", other)
        handoff.is_lost = True
        await asyncio.sleep(0.2)
        assert not worker.died.done()
        worker.remove("other", other)
        await worker.died

    pool, _ = stream(scene)
    assert report_of(pool).outcome is Outcome.DISCONNECTED


@pytest.mark.parametrize("answers", [True, False])
def test_a_bot_that_blocks_after_a_hang_up_is_ended_and_one_that_does_not_may_finish(
    answers: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DISCONNECT_CHECK_INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(leases, "PING_TIMEOUT_SECONDS", 0.1)

    async def scene(pool: PoolOfUnstarted, handoff: Handoff, websocket: WebSocket) -> None:
        worker = pool.ready_workers[0]
        await worker.requests.get()
        worker.say(ADMITTED, RUNNING)
        handoff.is_lost = True
        for _ in range(3):
            pinged = await worker.requests.get()
            assert (await pinged.read())[0].target == b"/livez"
            if not answers:
                break
            await pinged.answer({})
        if not answers:
            await worker.died
            return
        assert worker.messages == []
        handoff.is_lost = False  # so that no ping is open at the end
        await asyncio.sleep(0.02)
        worker.say(COMPLETED)

    pool, _ = stream(scene)
    assert report_of(pool).outcome is (Outcome.COMPLETED if answers else Outcome.DISCONNECTED)
