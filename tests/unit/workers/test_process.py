"""Messages from a worker, which may send anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.workers.fork_client import ForkedProcess
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    SMALL,
    EventEmitted,
    Exited,
    FileStored,
    Message,
    MoqServing,
    Reply,
    Run,
    SessionEnded,
    StateEntered,
)
from pipecat_base.workers.process import MESSAGES_PER_SECOND, WorkerProcess

UNUSED_PID = 2**22 + 1
"""No process has this id (proc(5), pid_max)."""


def received_from(*messages: Message) -> tuple[list[EventEmitted], list[str]]:
    """Events and uploads that the launcher takes from a worker with the session "s" that sends these messages."""

    async def scene() -> tuple[list[EventEmitted], list[str]]:
        ours, end = Channel.pair()
        theirs = Channel(end)
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        events: list[EventEmitted] = []
        worker = WorkerProcess(ForkedProcess(UNUSED_PID, ours, exited), events.append)
        lease = worker.lease("s")
        for message in messages:
            theirs.send(message)
        exited.set_result(None)
        assert await worker.died
        theirs.close()
        return events, lease.uploads

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "foreign",
    [
        (None, "turn", {}),
        ("another", "turn", {}),
    ],
)
def test_an_event_of_no_session_of_the_worker_is_ignored(foreign: tuple[Any, Any, Any]) -> None:
    event = EventEmitted("s", "turn", {"number": 1}, 5.0)
    lag = EventEmitted(None, "process_loop_lag", {"lag_secs": 0.1}, 5.0)
    events, _ = received_from(EventEmitted(*foreign, 5.0), event, lag)
    assert events == [event, lag]


def ended_by(*messages: Message) -> str:
    """How a process ends that sends these messages."""

    async def scene() -> str:
        ours, end = Channel.pair()
        theirs = Channel(end)
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        worker = WorkerProcess(ForkedProcess(UNUSED_PID, ours, exited), lambda event: None)
        worker.lease("s")
        theirs.attach(asyncio.get_running_loop(), lambda message, descriptors: None, lambda: None)
        for message in messages:
            theirs.send(message)
        try:
            await asyncio.wait({worker.died}, timeout=0.3)
            exited.set_result(None)
            return await worker.died if worker.reason else ""
        finally:
            theirs.close()

    return asyncio.run(scene())


ILL_TYPED: Any = [
    (EventEmitted("s", "turn", [], 1.0), "wrong type (EventEmitted.fields)"),  # type: ignore[arg-type]
    (EventEmitted("s", 5, {}, 1.0), "wrong type (EventEmitted.name)"),  # type: ignore[arg-type]
    (EventEmitted(["s"], "turn", {}, 1.0), "wrong type (EventEmitted.session_id)"),  # type: ignore[arg-type]
    (EventEmitted("s", "turn", {}, float("nan")), "wrong type (EventEmitted.at)"),
    (EventEmitted("s", "turn", {}, 10**400), "wrong type (EventEmitted.at)"),
    (Reply(True), "wrong type (Reply.number)"),
    (Reply(1, None, "Malformed"), "wrong type (Reply.refusal)"),  # type: ignore[arg-type]
    (Reply(10**6), "sent Reply, which workers do not"),
    (MoqServing("s", "abc"), "wrong type (MoqServing.fingerprints)"),  # type: ignore[arg-type]
    (StateEntered("s", "asleep"), "a state that no session has"),
    (SessionEnded("s", "failed", "", 1.0, [1]), "wrong type (SessionEnded.bot_error)"),  # type: ignore[list-item]
    (FileStored("s", "u" * 2 * SMALL), f"more than {2 * SMALL} bytes (FileStored)"),
    (Run(1, "s", "daily", None, {}, None, None, []), "that only the launcher sends (Run)"),
]


@pytest.mark.parametrize(("message", "how"), ILL_TYPED)
def test_the_first_invalid_message_ends_the_process(message: Message, how: str) -> None:
    how_it_ended = ended_by(message, *[StateEntered("s", "running")] * 3)
    assert how_it_ended.startswith("was killed, as it sent "), how_it_ended
    assert how_it_ended.endswith(how)


def test_a_flood_of_good_messages_ends_the_process() -> None:
    good = StateEntered("s", "running")
    assert ended_by(*[good] * 10 * MESSAGES_PER_SECOND) == ""
    assert ended_by(*[good] * (10 * MESSAGES_PER_SECOND + 100)) == "was killed, as it sent too many messages"


def test_replies_that_nothing_waits_for_count_as_messages() -> None:
    assert ended_by(*[Reply(0)] * (10 * MESSAGES_PER_SECOND + 100)) == "was killed, as it sent too many messages"


def test_the_number_of_remembered_uploads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat_base.workers.process.MAX_UPLOADS", 3)
    _, uploads = received_from(*(FileStored("s", f"file-{number}") for number in range(5)))
    assert uploads == ["file-0", "file-1", "file-2"]
