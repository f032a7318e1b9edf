"""What the launcher hears from a bot's process, which may say anything."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipecat_base.pods.nursery import Child
from pipecat_base.pods.worker import Allowance, Worker
from pipecat_base.wire.channel import Channel
from pipecat_base.wire.messages import Exited, Message, Noted, Stored

NOBODY = 2**22 + 1
"""No process has this id (proc(5), pid_max)."""


def said(*messages: Message) -> tuple[list[Noted], list[str]]:
    """The facts and the uploads of the session "s" that are heard of a process that says this, and ends."""

    async def scene() -> tuple[list[Noted], list[str]]:
        ours, end = Channel.pair()
        theirs = Channel(end)
        exited: asyncio.Future[Exited | None] = asyncio.get_running_loop().create_future()
        heard: list[Noted] = []
        worker = Worker(Child(NOBODY, ours, exited), heard.append)
        stint = worker.take("s")
        for message in messages:
            theirs.send(message)
        exited.set_result(None)
        assert await worker.died
        theirs.close()
        return heard, stint.uploads

    return asyncio.run(scene())


@pytest.mark.parametrize(
    "nonsense",
    [
        ("s", "turn", []),
        ("s", 5, {}),
        ("s", None, {}),
        (["s"], "turn", {}),
        (None, "turn", {}),
        ("another", "turn", {}),
    ],
)
def test_what_is_no_fact_of_a_session_here_is_not_heard(nonsense: tuple[Any, Any, Any]) -> None:
    fact = Noted("s", "turn", {"number": 1}, 5.0)
    lag = Noted(None, "process_loop_lag", {"lag_secs": 0.1}, 5.0)
    heard, _ = said(Noted(*nonsense, 5.0), fact, lag)
    assert heard == [fact, lag]


def test_no_more_uploads_are_remembered_than_this(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipecat_base.pods.worker.MAX_UPLOADS", 3)
    _, uploads = said(*(Stored("s", f"file-{number}") for number in range(5)))
    assert uploads == ["file-0", "file-1", "file-2"]


def test_a_process_that_was_silent_for_long_may_not_say_more_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now

    monkeypatch.setattr("pipecat_base.pods.worker.time", Clock)
    allowance = Allowance(5)
    for _ in range(2):
        assert [allowance.take() for _ in range(60)].count(True) == 50
        now += 3600
