"""Messages between processes, and the channel that carries them."""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Any

import pytest

from pipecat_base.errors import AtCapacity, Malformed, Refusal, SetupFailed, UnknownSession
from pipecat_base.sessions.outcome import MAX_FRAMES, MAX_LINE, BotError, Outcome, Report
from pipecat_base.sessions.transports import DailyRoom, MoqRelay, MoqServer, NoTransport, PendingWebRTC, WhatsAppCall
from pipecat_base.workers.ipc.channel import HEAD, Channel
from pipecat_base.workers.ipc.messages import (
    Fork,
    Message,
    RemoteError,
    Reply,
    Run,
    ServeConnection,
    SessionEnded,
    StartupFailed,
    StateEntered,
    decode,
    encode,
    transport_as_dict,
    transport_from,
)

STREAM = {"kind": "Stream", "transport_type": None}
RUN = Run(1, "s", "websocket", 2.5, STREAM, {"a": ["ü", None]}, "flow", ["127.0.0.1", None], b"\0\xff", b"e")


@pytest.mark.parametrize(
    "message",
    [
        RUN,
        Fork(7, True),
        ServeConnection(b"GET /", b"", ["::1", 5], "https"),
        SessionEnded.of("s", Report(Outcome.FAILED, "x", 0.5)),
    ],
)
def test_a_message_arrives_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize(
    "transport",
    [NoTransport(), DailyRoom("u", None), PendingWebRTC(), MoqRelay("u", "n"), WhatsAppCall({"sdp": ""}, {"id": "1"})],
)
def test_a_transport_arrives_as_it_was_sent(transport: Any) -> None:
    assert transport_from(transport_as_dict(transport)) == transport


def test_a_callback_is_not_sent() -> None:
    server = MoqServer("n", 4080, print)
    assert "on_serving" not in transport_as_dict(server)
    assert transport_from(transport_as_dict(server), on_serving=print) == server


@pytest.mark.parametrize(
    "refusal", [AtCapacity("full", session_id="s"), Malformed("bad", field="sdp"), UnknownSession("s")]
)
def test_a_refusal_is_the_same_on_the_other_side(refusal: Refusal) -> None:
    reply = decode(encode(Reply.refusing(1, refusal)))
    assert isinstance(reply, Reply)
    with pytest.raises(type(refusal)) as caught:
        reply.result()
    assert caught.value.body() == refusal.body()
    assert caught.value.headers("x") == refusal.headers("x")


def test_an_error_has_its_name_on_the_other_side() -> None:
    with pytest.raises(RemoteError) as caught:
        Reply.failing(1, ImportError("broken")).result()
    assert (type(caught.value).__name__, str(caught.value)) == ("ImportError", "broken")


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
            ours.send(Run(number, "s", "plain", None, {}, body, None, [None, None]))
        theirs.attach(loop, lambda message, _: got.put_nowait(message), gone.set)
        for number in range(3):
            message = await asyncio.wait_for(got.get(), 10)
            assert isinstance(message, Run)
            assert (message.number, message.body) == (number, body)
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
        content = encode(StateEntered("s", "running"))
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
        theirs.send(StateEntered("s", "running"))
        theirs.send(StateEntered("s", "waiting"))
        ours.finish()  # and the other end is still open
        assert received == [StateEntered("s", "running"), StateEntered("s", "waiting")]
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
    ended = decode(encode(SessionEnded("s", "failed", "The bot raised KeyError.", 1.0, sent)))
    assert isinstance(ended, SessionEnded)
    assert ended.report().bot_error == bot_error
