"""Which worker a request is for, which workers are kept, and which sessions end when newer code is loaded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from pipecat_base.errors import NoProcess, NotReached
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.fork_client import ForkClient, TemplateConnection
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import Close, Exited, SessionEnded, StateEntered
from pipecat_base.workers.lease import WorkerLease
from pipecat_base.workers.pool import WorkerPool
from pipecat_base.workers.process import WorkerProcess
from pipecat_base.workers.revision import FAILURES_UNTIL_UNREADY, Revision
from tests.support.workers import IMPORTED, ShortLimits, UnstartedWorker, pool_of

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "GET",
    "path": "/own",
    "query_string": b"",
    "headers": [],
    "scheme": "http",
    "client": None,
    "server": None,
}


def webrtc(session_id: str) -> SessionRequest:
    return SessionRequest(session_id, TransportKind.WEBRTC)


def test_a_peer_belongs_to_the_first_session_that_named_it_until_its_end() -> None:
    async def scene() -> None:
        with pool_of(UnstartedWorker(), UnstartedWorker()) as pool:
            async with pool.reserve(webrtc("b")) as other:
                await other.take_worker()
                async with pool.reserve(webrtc("a")) as lease:
                    await lease.take_worker()
                    pool.note_peer(lease, "1")
                    pool.note_peer(other, "1")
                    pool.note_peer(other, "2")
                    assert [pool.lease_of_peer(pc_id) for pc_id in ("1", "2", "3")] == [lease, other, None]
                assert [pool.lease_of_peer(pc_id) for pc_id in ("1", "2")] == [None, other]

    asyncio.run(scene())


async def answered(pool: WorkerPool, **options: Any) -> list[Any]:
    answer: list[Any] = []

    messages = iter([{"type": "http.request"}])

    async def receive() -> Any:
        return next(messages, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None:
        answer.append(message.get("body", message.get("status")))

    await pool.answer({**SCOPE, **options.pop("scope", {})}, receive, send, **options)
    return answer


def test_a_request_that_names_a_session_is_answered_by_its_worker_and_others_by_the_control_worker() -> None:
    async def scene() -> None:
        control_worker, worker = UnstartedWorker(), UnstartedWorker()
        with pool_of(worker) as pool:
            pool._revision.control_worker = control_worker
            async with pool.reserve(webrtc("a")) as lease:
                await lease.take_worker()
                headers = {"headers": [(b"x-daily-session-id", b"a")]}
                for scope, options, wanted in (
                    ({}, {}, control_worker),
                    ({"headers": [(b"x-daily-session-id", b"?")]}, {}, control_worker),
                    (headers, {}, worker),
                    ({}, {"lease": lease}, worker),
                ):
                    answering = asyncio.ensure_future(answered(pool, scope=scope, **options))
                    handed = await asyncio.wait_for(wanted.requests.get(), 1)
                    assert (handed.request.is_internal, handed.request.session_id) == (False, None)
                    await handed.answer(b"own")
                    assert await answering == [200, b"own", b""]
            control_worker.die()
            await control_worker.died
            with pytest.raises(NotReached):
                await answered(pool)
            pool._revision.control_worker = None
            with pytest.raises(NotReached):
                await answered(pool)

    asyncio.run(scene())


@pytest.mark.parametrize("offers", [0, 1])
def test_newer_code_ends_a_session_unless_its_caller_has_come(offers: int) -> None:
    async def scene() -> None:
        with pool_of(UnstartedWorker()) as pool:
            async with pool.reserve(webrtc("s")) as lease:
                await lease.take_worker()
                lease.offers = offers
                lease.on_state(0, SessionState.WAITING, TransportKind.WEBRTC)
                pool._end_waiting()
                assert lease.session.stop.done() is (offers == 0)
                assert offers or lease.session.stop.result() is Outcome.DRAINED

    asyncio.run(scene())


@pytest.mark.parametrize(("kind", "state"), [(TransportKind.WEBRTC, "running"), (TransportKind.DAILY, "admitted")])
def test_newer_code_does_not_end_a_session_that_waits_for_no_caller(kind: TransportKind, state: str) -> None:
    async def scene() -> None:
        with pool_of(UnstartedWorker()) as pool:
            async with pool.reserve(SessionRequest("s", kind)) as lease:
                await lease.take_worker()
                lease.on_state(0, SessionState(state), kind)
                pool._end_waiting()
                assert not lease.session.stop.done()

    asyncio.run(scene())


def test_a_message_for_a_session_waits_until_that_has_a_worker() -> None:
    async def scene() -> None:
        with pool_of(UnstartedWorker()) as pool:
            async with pool.reserve(webrtc("a")) as lease:
                waiting = asyncio.ensure_future(pool.lease_of("a"))
                await asyncio.sleep(0.01)
                assert not waiting.done()
                await lease.take_worker()
                assert await asyncio.wait_for(waiting, 1) is lease
                assert await pool.lease_of("a") is lease
                del pool._leases["a"]
                waiting = asyncio.ensure_future(pool.lease_of("a"))
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(waiting, 1) is None
            assert await pool.lease_of("nobody") is None

    asyncio.run(scene())


def test_a_session_that_gets_no_worker_is_not_waited_for_longer_than_for_a_worker() -> None:
    async def scene() -> None:
        with pool_of() as pool:
            pool.limits = ShortLimits(take_timeout=0.05)
            async with pool.reserve(webrtc("a")):
                assert await asyncio.wait_for(pool.lease_of("a"), 1) is None

    asyncio.run(scene())


def test_a_session_that_has_begun_holds_its_slot_after_the_request() -> None:
    async def scene() -> None:
        with pool_of(UnstartedWorker(), max_sessions=1) as pool:
            lease = await pool.begin(SessionRequest("s", TransportKind.PLAIN))
            worker = pool.ready_workers[0]
            await lease.take_worker()
            assert pool.registry.full
            assert pool.busy() == {"s": worker}
            worker.say(StateEntered("s", "running", "plain", 0), SessionEnded("s", 0, "completed"))
            await asyncio.wait_for(lease.freed, 1)
            assert not pool.registry.full
            assert pool.busy() == {}
            await asyncio.sleep(0.02)
            assert worker.messages == [Close()], "a worker serves one session"

    asyncio.run(scene())


@pytest.mark.parametrize(
    "answer",
    [
        b'{"ready": true}',
        b'{"ready": false, "reason": "x"}',
        *(b"null", b"[]", b"OK", b"{}", b'{"ready": "yes"}'),
    ],
)
def test_a_verdict_of_the_bots_process_is_one_whatever_it_answers(answer: bytes) -> None:
    async def scene() -> None:
        control_worker = UnstartedWorker()
        with pool_of() as pool:
            pool._revision.control_worker = control_worker
            pool._revision.imported = replace(IMPORTED, has_readyz=True)
            asking = asyncio.ensure_future(pool.ready())
            await (await control_worker.requests.get()).answer(answer)
            verdict: Any = await asking
            control_worker.die()
            assert isinstance(verdict, dict)
            assert isinstance(verdict["ready"], bool)

    asyncio.run(scene())


# The workers of a revision.


@contextlib.asynccontextmanager
async def revision_of(*idle: UnstartedWorker, **limits: Any) -> AsyncIterator[Revision]:
    channels = [Channel(end) for end in socket.socketpair()]
    revision = Revision(
        ForkClient(channels[0]),
        TemplateConnection(IMPORTED, channels[1]),
        "fork",
        ShortLimits(**{"take_timeout": 0.1, **limits}),
        on_event=lambda event: None,
    )
    for worker in idle:
        keep(revision, worker)
        revision._add(worker)
    try:
        yield revision
    finally:
        revision.stop()
        for channel in channels:
            channel.close()
        for worker in idle:
            worker.die()


def keep(revision: Revision, worker: UnstartedWorker) -> None:
    """As :meth:`Revision._start_worker` does."""
    revision._workers.add(worker)
    worker.died.add_done_callback(lambda _: revision._note_death(worker))


class Taken:
    """A lease, as a revision sees it."""

    def __init__(self, session_id: str = "s") -> None:
        self.session = Session(session_id, TransportKind.PLAIN, None)
        self.deaths: list[WorkerProcess] = []

    def on_state(self, number: int, state: SessionState, transport: TransportKind) -> None: ...

    def on_noted(self, kind: str, values: list[str]) -> None: ...

    def on_ended(self, message: SessionEnded) -> None: ...

    def on_death(self, worker: WorkerProcess) -> None:
        self.deaths.append(worker)


def taken(session_id: str = "s") -> WorkerLease:
    return cast(WorkerLease, Taken(session_id))


def test_a_worker_that_died_while_it_was_idle_is_not_leased_and_counts_as_a_failure() -> None:
    async def scene() -> None:
        workers = [UnstartedWorker() for _ in range(FAILURES_UNTIL_UNREADY + 1)]
        async with revision_of(*workers) as revision:
            *dying, last = workers
            for worker in dying:
                assert revision.problem is None
                worker.die(Exited(worker.pid, 9))
                await worker.died
                await asyncio.sleep(0)
            assert revision.counts["idle"] == 1
            assert revision.problem == "it was killed by SIGKILL while it waited for a call"
            assert await revision.take(taken()) is last
            revision._note_life(last)
            assert revision.problem is None

    asyncio.run(scene())


def test_a_worker_in_which_no_bot_ran_is_leased_again_and_another_exits() -> None:
    async def scene() -> None:
        unused, used = UnstartedWorker(), UnstartedWorker()
        async with revision_of(unused, used) as revision:
            first, second = taken("a"), taken("b")
            assert await revision.take(first) is unused
            assert await revision.take(second) is used
            used.say(StateEntered("b", "running", "plain", 1))
            await asyncio.sleep(0.02)
            for worker, lease in ((used, second), (unused, first)):
                worker.remove(lease.session.id, lease)
                revision.give_back(worker)
            assert await revision.take(taken()) is unused
            await asyncio.sleep(0.02)
            assert (used.messages, unused.messages) == ([Close()], [])
            with pytest.raises(NoProcess, match=r"within 0\.1 s"):
                await revision.take(taken())

    asyncio.run(scene())


def test_a_session_waits_for_a_worker_and_what_it_did_not_wait_for_goes_to_the_next() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        async with revision_of() as revision:
            keep(revision, worker)
            leases = [taken(session_id) for session_id in "abc"]
            first, ended, second = (asyncio.ensure_future(revision.take(lease)) for lease in leases)
            await asyncio.sleep(0)
            first.cancel()
            await asyncio.sleep(0)
            assert not second.done()
            revision._add(worker)
            assert await asyncio.wait_for(ended, 1) is worker
            assert worker.calls == 1
            worker.remove("b", leases[1])
            revision.give_back(worker)
            assert await asyncio.wait_for(second, 1) is worker
            worker.die()

    asyncio.run(scene())


def end(revision: Revision, worker: UnstartedWorker, lease: WorkerLease) -> None:
    """As the pool does."""
    worker.remove(lease.session.id, lease)
    revision.give_back(worker)


async def run(revision: Revision, worker: UnstartedWorker, *leases: WorkerLease) -> None:
    """Have the bots of these sessions run."""
    worker.say(*(StateEntered(lease.session.id, "running", "plain", 1) for lease in leases))
    await asyncio.sleep(0.02)


def test_a_session_goes_to_the_worker_with_the_fewest_calls() -> None:
    async def scene() -> None:
        first, second = workers = [UnstartedWorker(max_calls=2) for _ in range(2)]
        async with revision_of(*workers, calls=2, calls_before_restart=None) as revision:
            leases = [taken(session_id) for session_id in "abcd"]
            assert [await revision.take(lease) for lease in leases] == [first, second, first, second]
            assert (revision.counts["busy"], revision.counts["idle"]) == (2, 0)
            with pytest.raises(NoProcess):
                await revision.take(taken("e"))
            end(revision, second, leases[1])
            assert await revision.take(taken("f")) is second

    asyncio.run(scene())


def test_a_worker_takes_no_more_calls_than_before_its_restart_and_ends_with_the_last() -> None:
    async def scene() -> None:
        worker = UnstartedWorker(max_calls=2)
        async with revision_of(worker, calls=2, calls_before_restart=3) as revision:
            first, unrun, second, third = (taken(session_id) for session_id in "abcd")
            for lease in (first, unrun):
                await revision.take(lease)
            await run(revision, worker, first)
            end(revision, worker, unrun)  # it counts for nothing: no bot ran
            await revision.take(second)
            await run(revision, worker, second)
            end(revision, worker, first)
            await revision.take(third)
            await run(revision, worker, third)
            end(revision, worker, second)
            with pytest.raises(NoProcess):
                await revision.take(taken("e"))
            await asyncio.sleep(0.02)
            assert (worker.calls, worker.calls_run, worker.messages) == (1, 2, [])
            end(revision, worker, third)
            await asyncio.sleep(0.02)
            assert worker.messages == [Close()]

    asyncio.run(scene())


def test_a_worker_that_ran_calls_and_is_needed_no_more_exits() -> None:
    async def scene() -> None:
        first, second = workers = [UnstartedWorker(max_calls=2) for _ in range(2)]
        async with revision_of(*workers, calls=2, calls_before_restart=None, idle=2) as revision:
            leases = [taken(session_id) for session_id in "abc"]
            for lease in leases:
                await revision.take(lease)
            await run(revision, first, leases[0], leases[2])
            end(revision, first, leases[0])
            await asyncio.sleep(0.02)
            assert first.messages == [], "it runs a call"
            end(revision, first, leases[2])
            await asyncio.sleep(0.02)
            assert first.messages == [], "fewer than two calls could begin elsewhere"
            await run(revision, second, leases[1])
            end(revision, second, leases[1])
            await asyncio.sleep(0.02)
            assert (first.messages, second.messages) == ([], [Close()])

    asyncio.run(scene())


def test_a_spoiled_worker_takes_no_more_and_exits_after_its_calls() -> None:
    async def scene() -> None:
        worker = UnstartedWorker(max_calls=3)
        async with revision_of(worker, calls=3, calls_before_restart=None) as revision:
            first, second = taken("a"), taken("b")
            for lease in (first, second):
                await revision.take(lease)
            worker.is_spoiled = True
            end(revision, worker, first)
            with pytest.raises(NoProcess):
                await revision.take(taken("c"))
            assert worker.messages == []
            end(revision, worker, second)
            await asyncio.sleep(0.02)
            assert worker.messages == [Close()]

    asyncio.run(scene())


def test_a_worker_that_died_between_its_start_and_the_end_of_the_wait_for_it_tells_its_session() -> None:
    async def scene() -> None:
        worker, another = UnstartedWorker(), UnstartedWorker()
        async with revision_of() as revision:
            keep(revision, worker)
            lease = taken()
            waiting = asyncio.ensure_future(revision.take(lease))
            await asyncio.sleep(0)
            revision._add(worker)
            worker.die(Exited(worker.pid, 9))
            await worker.died
            assert await waiting is worker
            assert cast(Taken, lease).deaths == [worker]
            end(revision, worker, lease)
            waiting = asyncio.ensure_future(revision.take(lease))
            await asyncio.sleep(0)
            assert not waiting.done()
            revision._add(worker)  # which no one gets
            revision._add(another)
            assert await waiting is another
            assert revision.counts["idle"] == 0
            another.die()
            await another.died

    asyncio.run(scene())


def test_a_session_that_ends_or_a_launcher_that_stops_ends_the_wait_for_a_worker() -> None:
    async def scene() -> None:
        async with revision_of() as revision:
            stopped = taken()
            waiting = asyncio.ensure_future(revision.take(stopped))
            await asyncio.sleep(0)
            stopped.session.stop.set_result(Outcome.CANCELLED)
            with pytest.raises(NoProcess, match="ended before"):
                await waiting
            waiting = asyncio.ensure_future(revision.take(taken()))
            await asyncio.sleep(0)
            revision.stop()
            with pytest.raises(NoProcess, match="shutting down"):
                await waiting

    asyncio.run(scene())


def test_a_session_does_not_wait_for_a_worker_that_was_dead_when_it_took_it() -> None:
    """Its death may be known between its start and the end of the wait for it."""

    async def scene() -> None:
        dead, another = UnstartedWorker(), UnstartedWorker()
        with pool_of(dead, another) as pool:
            dead.die()
            await dead.died
            lease = await pool.begin(SessionRequest("s", TransportKind.PLAIN))
            assert await asyncio.wait_for(lease.take_worker(), 0.5) is another

    asyncio.run(scene())
