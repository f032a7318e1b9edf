"""Messages between processes, and the channel that carries them."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from pipecat_base.errors import SetupFailed, TooLarge
from pipecat_base.sessions.outcome import MAX_FRAMES, MAX_LINE, BotError, Outcome, Report
from pipecat_base.workers.ipc.channel import HEAD, Channel
from pipecat_base.workers.ipc.messages import (
    FILE,
    Cancel,
    Fork,
    Message,
    Noted,
    Serve,
    SessionEnded,
    StartupFailed,
    StateEntered,
    decode,
    encode,
)

SERVE = Serve(["::1", 5], None, "https", b"\0\xff", b"e", "s", 3, True, "flow", [{"urls": ["stun:ü"]}])
RUNNING = StateEntered("s", "running", "plain", 1)


@pytest.mark.parametrize(
    "message",
    [
        SERVE,
        Serve(),
        Fork(7, True, {"A": "ü"}),
        Cancel("s", "drained"),
        RUNNING,
        Noted("s", FILE, ["memory://a"]),
        SessionEnded("s", 1),
        SessionEnded.of("s", 1, Report(Outcome.FAILED, "x", 0.5, BotError("E: x", ("bot.py:1",))), None),
        SessionEnded.of("s", 1, Report(Outcome.FAILED, "x", 0.5), TooLarge("Too large.", field="body")),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


def test_a_request_is_served_with_what_the_launcher_knows_of_its_caller() -> None:
    scope = {"client": ("10.0.0.1", 5), "server": None, "scheme": "https"}
    assert Serve.of(scope, session_id="s") == Serve(["10.0.0.1", 5], None, "https", session_id="s")


@pytest.mark.parametrize("bot_error", [None, BotError("E: x", ("bot.py:1",))])
def test_a_report_is_the_same_on_the_other_side(bot_error: BotError | None) -> None:
    report = Report(Outcome.FAILED, "x", 0.5, bot_error)
    ended = decode(encode(SessionEnded.of("s", 1, report, None)))
    assert isinstance(ended, SessionEnded)
    assert ended.report() == report


def test_a_startup_error_keeps_its_exit_status() -> None:
    error = StartupFailed.of(SetupFailed("a", "b", frames=["c"])).error()
    assert (error.exit_status, error.report()) == (
        SetupFailed.exit_status,
        SetupFailed("a", "b", frames=["c"]).report(),
    )


def pair() -> tuple[Channel, Channel]:
    ours, theirs = Channel.pair()
    return ours, Channel(theirs)


def test_descriptors_arrive_with_their_message() -> None:
    ours, theirs = pair()
    reader, writer = os.pipe()
    ours.send(Fork(1))
    ours.send(Fork(2), [writer])
    os.close(writer)
    assert theirs.receive(1) == (Fork(1), [])
    received = theirs.receive(1)
    assert received is not None
    message, (descriptor,) = received
    assert message == Fork(2)
    assert not os.get_inheritable(descriptor)
    os.write(descriptor, b"x")
    assert os.read(reader, 1) == b"x"
    for open_one in (descriptor, reader):
        os.close(open_one)
    ours.close()
    assert theirs.receive(1) is None
    theirs.close()


def test_a_large_message_does_not_hold_up_its_sender() -> None:
    async def scene() -> None:
        ours, theirs = pair()
        got: asyncio.Queue[Message] = asyncio.Queue()
        gone = asyncio.Event()
        loop = asyncio.get_running_loop()
        ours.attach(loop, lambda *_: None, lambda: None)
        body = "x" * 5_000_000
        for number in range(3):
            ours.send(Serve(session_id=str(number), flow_config=body))
        theirs.attach(loop, lambda message, _: got.put_nowait(message), gone.set)
        for number in range(3):
            message = await asyncio.wait_for(got.get(), 10)
            assert message == Serve(session_id=str(number), flow_config=body)
        ours.close()
        await asyncio.wait_for(gone.wait(), 5)
        theirs.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    "sent",
    [HEAD.pack(2**31, 0), HEAD.pack(4, 0) + b"null", HEAD.pack(2, 0) + b"[]", HEAD.pack(200_000, 0) + b"[" * 200_000],
)
def test_an_invalid_message_to_the_launcher_ends_the_channel(sent: bytes) -> None:
    async def scene() -> None:
        ours, theirs = Channel.pair()
        gone = asyncio.Event()
        ours.attach(asyncio.get_running_loop(), lambda *_: None, gone.set)
        theirs.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(theirs, sent)
        await asyncio.wait_for(gone.wait(), 5)
        ours.close()
        theirs.close()

    asyncio.run(scene())


def test_a_launcher_takes_no_descriptors() -> None:
    async def scene() -> None:
        ours, theirs = Channel.pair()
        got = asyncio.Event()
        ours.attach(asyncio.get_running_loop(), lambda *_: got.set(), lambda: None)
        before = len(os.listdir("/proc/self/fd"))
        content = encode(RUNNING)
        socket.send_fds(theirs, [HEAD.pack(len(content), 0) + content], [0, 1, 2])
        await asyncio.wait_for(got.wait(), 5)
        assert len(os.listdir("/proc/self/fd")) == before
        ours.close()
        theirs.close()

    asyncio.run(scene())


def test_messages_before_the_end_are_delivered_while_another_process_holds_the_channel() -> None:
    async def scene() -> None:
        ours, theirs = pair()
        received: list[Message] = []
        gone = asyncio.Event()
        ours.attach(asyncio.get_running_loop(), lambda message, _: received.append(message), gone.set)
        theirs.send(RUNNING)
        theirs.send(StateEntered("s", "waiting", "webrtc", 1))
        ours.finish()  # and the other end is still open
        assert received == [RUNNING, StateEntered("s", "waiting", "webrtc", 1)]
        assert gone.is_set()
        ours.close()
        theirs.close()

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("sent", "bot_error"),
    [
        (["KeyError: 'name'", "bot.py:3 in bot: x"], BotError("KeyError: 'name'", ("bot.py:3 in bot: x",))),
        (["x" * 9999, *["frame"] * 9999], BotError("x" * MAX_LINE, ("frame",) * MAX_FRAMES)),
        ([None, {}], BotError("None", ("{}",))),
        ("no list", None),
        ([], None),
        (None, None),
    ],
)
def test_a_bot_error_from_a_worker_is_bounded(sent: Any, bot_error: BotError | None) -> None:
    ended = decode(encode(SessionEnded("s", 1, "failed", "The bot raised KeyError.", 1.0, sent)))
    assert isinstance(ended, SessionEnded)
    assert ended.report().bot_error == bot_error
