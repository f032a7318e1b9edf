"""What the launcher hears from a bot's process, which may say anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.workers.fork_client import ForkedProcess
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    SMALL,
    Ended,
    Entered,
    EventEmitted,
    Exited,
    Message,
    Reply,
    Run,
    Serving,
    Stored,
)
from pipecat_base.workers.process import MESSAGES_PER_SECOND, WorkerProcess

NOBODY = 2**22 + 1
"""No process has this id (proc(5), pid_max)."""


def said(*messages: Message) -> tuple[list[EventEmitted], list[str]]:
    """The facts and the uploads of the session "s" that are heard of a process that says this, and ends."""

    async def scene() -> tuple[list[EventEmitted], list[str]]:
        ours, end = Channel.pair()
        theirs = Channel(end)
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        heard: list[EventEmitted] = []
        worker = WorkerProcess(ForkedProcess(NOBODY, ours, exited), heard.append)
        lease = worker.take("s")
        for message in messages:
            theirs.send(message)
        exited.set_result(None)
        assert await worker.died
        theirs.close()
        return heard, lease.uploads

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "nonsense",
    [
        (None, "turn", {}),
        ("another", "turn", {}),
    ],
)
def test_what_is_no_fact_of_a_session_here_is_not_heard(nonsense: tuple[Any, Any, Any]) -> None:
    event = EventEmitted("s", "turn", {"number": 1}, 5.0)
    lag = EventEmitted(None, "process_loop_lag", {"lag_secs": 0.1}, 5.0)
    heard, _ = said(EventEmitted(*nonsense, 5.0), event, lag)
    assert heard == [event, lag]


def ended_by(*messages: Message) -> str:
    """How a process ends that sends this."""

    async def scene() -> str:
        ours, end = Channel.pair()
        theirs = Channel(end)
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        worker = WorkerProcess(ForkedProcess(NOBODY, ours, exited), lambda event: None)
        worker.take("s")
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
    (Serving("s", "abc"), "wrong type (Serving.fingerprints)"),  # type: ignore[arg-type]
    (Entered("s", "asleep"), "a state that no session has"),
    (Ended("s", "failed", "", 1.0, [1]), "wrong type (Ended.bot_error)"),  # type: ignore[list-item]
    (Stored("s", "u" * 2 * SMALL), f"more than {2 * SMALL} bytes (Stored)"),
    (Run(1, "s", "daily", None, {}, None, None, []), "that only the launcher sends (Run)"),
]


@pytest.mark.parametrize(("message", "how"), ILL_TYPED)
def test_the_first_message_that_no_worker_sends_ends_the_process(message: Message, how: str) -> None:
    said = ended_by(message, *[Entered("s", "running")] * 3)
    assert said.startswith("was killed, as it sent "), said
    assert said.endswith(how)


def test_a_flood_of_good_messages_ends_the_process() -> None:
    good = Entered("s", "running")
    assert ended_by(*[good] * 10 * MESSAGES_PER_SECOND) == ""
    assert ended_by(*[good] * (10 * MESSAGES_PER_SECOND + 100)) == "was killed, as it sent too many messages"


def test_replies_that_nothing_waits_for_count_as_messages() -> None:
    assert ended_by(*[Reply(0)] * (10 * MESSAGES_PER_SECOND + 100)) == "was killed, as it sent too many messages"


def test_no_more_uploads_are_remembered_than_this(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat_base.workers.process.MAX_UPLOADS", 3)
    _, uploads = said(*(Stored("s", f"file-{number}") for number in range(5)))
    assert uploads == ["file-0", "file-1", "file-2"]
