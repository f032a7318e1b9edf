"""Messages from a worker, which may send anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.errors import SetupFailed
from pipecat_base.server.rate_limit import RateLimit
from pipecat_base.sessions.registry import SessionState
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers.ipc.messages import (
    FILE,
    SMALL,
    BotImported,
    Close,
    EventEmitted,
    Exited,
    Fork,
    Forked,
    Message,
    Noted,
    Progress,
    Serve,
    SessionEnded,
    Stage,
    StartupFailed,
    StateEntered,
)
from pipecat_base.workers.process import MESSAGES_PER_SECOND, WorkerDied, WorkerProcess
from tests.support.workers import UnstartedWorker

RUNNING = StateEntered("s", "running", "plain", 1)


class Messages(list[Any]):
    """A session that keeps what it is told."""

    def on_state(self, number: int, state: SessionState, transport: TransportKind) -> None:
        self.append((number, state, transport))

    def on_noted(self, kind: str, values: list[str]) -> None:
        self.append((kind, values))

    def on_ended(self, message: SessionEnded) -> None:
        self.append(message)

    def on_death(self, worker: WorkerProcess) -> None:
        self.append(worker.died.result())


def received_from(*messages: Message) -> tuple[list[EventEmitted], list[Any]]:
    """Events, and what the session "s" is told, of a worker with that session that sends these messages and dies."""

    async def scene() -> tuple[list[EventEmitted], list[Any]]:
        events: list[EventEmitted] = []
        worker, session = UnstartedWorker(events.append), Messages()
        worker.add("s", session)
        worker.say(*messages)
        worker.die(Exited(worker.pid, 0))
        await worker.died
        return events, session

    return asyncio.run(scene())


@pytest.mark.parametrize("foreign", [(None, "turn", {}), ("another", "turn", {})])
def test_an_event_of_no_session_of_the_worker_is_ignored(foreign: tuple[Any, Any, Any]) -> None:
    event = EventEmitted("s", "turn", {"number": 1}, 5.0)
    lag = EventEmitted(None, "process_loop_lag", {"lag_secs": 0.1}, 5.0)
    events, _ = received_from(EventEmitted(*foreign, 5.0), event, lag)
    assert events == [event, lag]


def test_a_session_is_told_what_its_worker_says_of_it_and_that_it_has_died() -> None:
    ended = SessionEnded("s", 1, "completed")
    said = [RUNNING, Noted("s", FILE, ["memory://a"]), ended]
    others = [StateEntered("another", "running", "plain", 1), Noted("another", FILE, ["x"]), SessionEnded("another", 1)]
    _, told = received_from(*(message for both in zip(said, others, strict=True) for message in both))
    assert told[:3] == [(1, SessionState.RUNNING, TransportKind.PLAIN), (FILE, ["memory://a"]), ended]
    assert len(told) == 4


def test_a_late_message_of_an_ended_session_reaches_neither_it_nor_its_successor() -> None:
    async def scene() -> tuple[list[Any], list[Any], list[EventEmitted]]:
        events: list[EventEmitted] = []
        worker, first, second = UnstartedWorker(events.append), Messages(), Messages()
        worker.add("s", first)
        worker.remove("s", first)
        worker.add("t", second)
        worker.say(RUNNING, SessionEnded("s", 1, "completed"), EventEmitted("s", "turn", {}, 1.0))
        await asyncio.sleep(0.02)
        worker.remove("t", first)  # this was not its session
        assert worker.calls == 1
        worker.remove("t", second)
        assert worker.calls == 0
        worker.die()
        await worker.died
        return first, second, events

    assert asyncio.run(scene()) == ([], [], [])


def test_a_call_counts_once_its_bot_has_run_and_it_is_over() -> None:
    async def scene() -> list[int]:
        counts = []
        worker, session = UnstartedWorker(), Messages()
        for state in ("admitted", "waiting", "running"):
            worker.add("s", session)
            worker.say(StateEntered("s", state, "plain", 1), StateEntered("another", "running", "plain", 1))
            await asyncio.sleep(0.02)
            counts.append(worker.calls_run)
            worker.remove("s", session)
            counts.append(worker.calls_run)
        worker.die()
        return counts

    assert asyncio.run(scene()) == [0, 0, 0, 0, 0, 1]


async def until_heard(worker: UnstartedWorker) -> None:
    """Wait until the launcher has all that the worker has said, or has killed it."""
    while worker._bots_end._outgoing and not worker.died.done():
        await asyncio.sleep(0.01)
    await asyncio.wait({worker.died}, timeout=0.3)


def stop_clock(worker: WorkerProcess) -> None:
    """However slow the machine is, no more messages are allowed than at once."""
    worker._messages = RateLimit(MESSAGES_PER_SECOND, clock=lambda: 0.0)


def ended_by(*messages: Message) -> str:
    """How a process ends that sends these messages."""

    async def scene() -> str:
        worker = UnstartedWorker()
        stop_clock(worker)
        worker.add("s", Messages())
        worker.say(*messages)
        await until_heard(worker)
        worker.die()
        return await worker.died if worker.reason else ""

    return asyncio.run(scene())


ILL_TYPED: Any = [
    (EventEmitted("s", "turn", [], 1.0), "wrong type (EventEmitted.fields)"),  # type: ignore[arg-type]
    (EventEmitted("s", 5, {}, 1.0), "wrong type (EventEmitted.name)"),  # type: ignore[arg-type]
    (EventEmitted(["s"], "turn", {}, 1.0), "wrong type (EventEmitted.session_id)"),  # type: ignore[arg-type]
    (EventEmitted("s", "turn", {}, float("nan")), "wrong type (EventEmitted.at)"),
    (EventEmitted("s", "turn", {}, 10**400), "wrong type (EventEmitted.at)"),
    (StateEntered("s", "ended", "plain", 1), "a state that no session has"),
    (StateEntered("s", "asleep", "plain", 1), "a state that no session has"),
    (StateEntered("s", "running", "telepathy", 1), "a state that no session has"),
    (StateEntered("s", "running", None, 1), "wrong type (StateEntered.transport)"),  # type: ignore[arg-type]
    (Noted("s", "moq", "abc"), "wrong type (Noted.values)"),  # type: ignore[arg-type]
    (Noted("s", FILE, [None]), "wrong type (Noted.values)"),  # type: ignore[list-item]
    (Noted("s", FILE, ["u" * 2 * SMALL]), f"more than {2 * SMALL} bytes (Noted)"),
    (SessionEnded("s", 1, "failed", "", 1.0, [1]), "wrong type (SessionEnded.bot_error)"),  # type: ignore[list-item]
    (SessionEnded("s", 1, 5), "wrong type (SessionEnded.outcome)"),  # type: ignore[arg-type]
    (SessionEnded("s", 1, "failed", refusal="malformed"), "wrong type (SessionEnded.refusal)"),  # type: ignore[arg-type]
    (SessionEnded("s", 1, "failed", seconds=True), "wrong type (SessionEnded.seconds)"),
    (Progress("idle", listens_on=[80]), "wrong type (Progress.listens_on)"),  # type: ignore[list-item]
    (Serve(session_id="s"), "that only the launcher sends (Serve)"),
    (Close(), "that only the launcher sends (Close)"),
    (Fork(1), "that only the launcher sends (Fork)"),
    (Forked(1, 5), "Forked, which workers do not"),
    (Exited(5, 0), "Exited, which workers do not"),
]


@pytest.mark.parametrize(("message", "how"), ILL_TYPED)
def test_the_first_invalid_message_ends_the_process(message: Message, how: str) -> None:
    how_it_ended = ended_by(message, *[RUNNING] * 3)
    assert how_it_ended.startswith("was killed, as it sent "), how_it_ended
    assert how_it_ended.endswith(how)


@pytest.mark.parametrize("outcome", ["", "triumph"])
def test_an_outcome_that_does_not_exist_is_for_the_session_to_judge(outcome: str) -> None:
    assert ended_by(SessionEnded("s", 1, outcome)) == ""


@pytest.mark.parametrize(
    "good",
    [
        RUNNING,
        StateEntered("another", "running", "plain", 1),
        Noted("s", "", []),
        SessionEnded("s", 1),
        Progress("idle"),
    ],
)
def test_a_flood_of_good_messages_ends_the_process(good: Message) -> None:
    assert ended_by(*[good] * 10 * MESSAGES_PER_SECOND) == ""
    assert ended_by(*[good] * (10 * MESSAGES_PER_SECOND + 100)) == "was killed, as it sent too many messages"


@pytest.mark.parametrize("repeated", [False, True])
def test_refused_requests_do_not_count_as_messages_each_reported_once(repeated: bool) -> None:
    async def scene() -> bool:
        worker, session = UnstartedWorker(), Messages()
        stop_clock(worker)
        worker.add("s", session)
        for _ in range(12 * MESSAGES_PER_SECOND):
            number = 1 if repeated and worker._numbered else worker.next_number()
            worker.say(SessionEnded("s", number, refusal=["malformed", "body"]))
        await until_heard(worker)
        worker.die()
        await worker.died
        assert repeated or [ended.number for ended in session[:-1]] == list(range(1, 12 * MESSAGES_PER_SECOND + 1))
        return worker.is_killed

    assert asyncio.run(scene()) is repeated


def test_a_worker_for_more_calls_may_send_more_messages() -> None:
    async def scene(max_calls: int) -> bool:
        worker = UnstartedWorker(max_calls=max_calls)
        worker.add("s", Messages())
        worker.say(*[RUNNING] * 15 * MESSAGES_PER_SECOND)
        await until_heard(worker)
        worker.die()
        return worker.is_killed and worker.reason is not None

    assert [asyncio.run(scene(max_calls)) for max_calls in (1, 2)] == [True, False]


def test_a_worker_that_dies_tells_all_its_sessions_and_how_many_they_were() -> None:
    async def scene() -> None:
        worker, sessions = UnstartedWorker(max_calls=3), [Messages(), Messages(), Messages()]
        for name, session in zip("abc", sessions, strict=True):
            worker.add(name, session)
        worker.remove("b", sessions[1])
        worker.die(Exited(worker.pid, 9))
        await worker.died
        assert sessions == [["was killed by SIGKILL"], [], ["was killed by SIGKILL"]]
        assert worker.calls_at_end == 2

    asyncio.run(scene())


def test_a_worker_that_closes_its_connection_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat_base.workers.process.EXIT_STATUS_TIMEOUT_SECONDS", 0.05)

    async def scene() -> str:
        worker = UnstartedWorker()
        worker._bots_end.close()
        return await asyncio.wait_for(worker.died, 1)

    assert asyncio.run(scene()) == "closed its connection to the launcher"


def test_a_worker_is_idle_once_the_bot_is_set_up_and_not_before() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        worker.say(BotImported("bot", "bot.py", [], None, False, False, False, [], []), Progress(Stage.LOOP_STARTED))
        await asyncio.wait_for(worker.loop_started, 1)
        assert not worker.idle.done()
        ready = Progress(Stage.IDLE, True, ["0.0.0.0:9"])
        worker.say(ready)
        assert await asyncio.wait_for(worker.idle, 1) == ready
        worker.die()

    asyncio.run(scene())


@pytest.mark.parametrize("says_why", [True, False])
def test_a_worker_that_fails_or_dies_before_it_is_idle_says_why(says_why: bool) -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        if says_why:
            worker.say(StartupFailed.of(SetupFailed("setup() raised.", "Read the log.")))
        worker.die(Exited(worker.pid, 9))
        with pytest.raises(SetupFailed if says_why else WorkerDied, match=None if says_why else "SIGKILL"):
            await asyncio.wait_for(worker.idle, 1)
        assert worker.loop_started.exception() is worker.idle.exception()

    asyncio.run(scene())


def test_a_worker_that_does_not_close_in_time_is_killed() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        worker.close(0.05)
        worker.close(9)
        await asyncio.sleep(0.02)
        assert worker.messages == [Close(), Close()]
        assert not worker.is_killed
        await asyncio.wait_for(worker.died, 1)
        assert worker.is_killed

    asyncio.run(scene())


def test_a_request_reaches_the_worker_with_a_connection_to_answer_on() -> None:
    async def scene() -> None:
        worker = UnstartedWorker()
        request = Serve(session_id="s", is_internal=True)
        with worker.connect(request) as ours:
            handed = await worker.requests.get()
            assert handed.request == request
            handed.sock.sendall(b"answer")
            handed.sock.close()
            loop = asyncio.get_running_loop()
            assert [await loop.sock_recv(ours, 10) for _ in range(2)] == [b"answer", b""]
        worker.die()
        await worker.died
        with worker.connect(request) as ours:  # of a dead worker: at its end
            assert await asyncio.wait_for(loop.sock_recv(ours, 10), 1) == b""

    asyncio.run(scene())
