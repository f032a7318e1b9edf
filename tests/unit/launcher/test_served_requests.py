"""What a worker tells the launcher of the requests that it is handed, and in which order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import pytest
from starlette.types import Receive, Scope, Send

from pipecat_base.api.flow_config import SCOPE_KEY as FLOW_CONFIG_KEY
from pipecat_base.api.requests import SESSION_ID_KEY
from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import SetupFailed, TooLarge
from pipecat_base.launcher.served_requests import ServedRequests
from pipecat_base.server.error_responses import ON_REFUSAL
from pipecat_base.server.limits import MAX_HEADERS
from pipecat_base.sessions.outcome import MESSAGES, Outcome, Report
from pipecat_base.sessions.registry import SessionRegistry
from pipecat_base.sessions.transports import TransportKind
from pipecat_base.workers import http_proxy
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import (
    Cancel,
    Close,
    Message,
    Progress,
    Serve,
    SessionEnded,
    Stage,
    StartupFailed,
    StateEntered,
)

App = Callable[["Pod", Scope, Receive, Send], Any]
NONE_BEGAN = SessionEnded("s", 1)


class Pod:
    takes_files = True

    def __init__(self, failure: SetupFailed | None) -> None:
        self.registry = SessionRegistry(max_sessions=None, max_seconds=None, refusal=lambda: None)
        self.given_ice: list[Any] = []
        self.is_closed = False
        self._failure = failure

    async def open(self) -> Mapping[str, Any]:
        if self._failure is not None:
            raise self._failure
        return {"pool": "of connections"}

    def give_ice_servers(self, servers: list[Any]) -> None:
        self.given_ice.append(servers)

    def stop(self) -> None: ...

    async def wait_for_leftovers(self) -> None: ...

    async def close(self) -> None:
        self.is_closed = True


class Launchers:
    """The launcher's end of a worker."""

    def __init__(self, channel: Channel, pod: Pod) -> None:
        self.channel = channel
        self.pod = pod
        self.told: list[Message] = []
        """By the worker, as far as the launcher has looked."""
        channel.attach(asyncio.get_running_loop(), lambda message, _: self.told.append(message), lambda: None)

    async def ask(self, request: Serve, line: bytes = b"POST /bot HTTP/1.1") -> tuple[bytes, list[Message]]:
        """The response, and what the worker had told before its first byte."""
        launchers, workers = socket.socketpair()
        with launchers:
            launchers.setblocking(False)
            with workers:
                self.channel.send(request, [workers.fileno()])
            loop = asyncio.get_running_loop()
            if not request.head:
                await loop.sock_sendall(launchers, line + b"\r\nhost: none.invalid\r\ncontent-length: 0\r\n\r\n")
            self.channel.detach()  # or it would also hear what comes after the response
            answer = await loop.sock_recv(launchers, 65536)
            self.channel.attach(loop, lambda message, _: self.told.append(message), lambda: None)
            self.channel.poll()
            return answer, self.told[2:]


@contextlib.asynccontextmanager
async def worker(app: App, internal: App | None = None, failure: SetupFailed | None = None) -> AsyncIterator[Launchers]:
    ours, theirs = Channel.pair()
    pod = Pod(failure)

    def of(part: App | None) -> Any:
        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            assert part is not None
            await part(pod, scope, receive, send)

        return serve

    served = ServedRequests(
        Channel(theirs), cast(Any, pod), of(app), of(internal), ServerLimits(), os.path.dirname(__file__), ()
    )
    launchers = Launchers(ours, pod)
    running = asyncio.ensure_future(served.run())
    try:
        async with asyncio.timeout(5):
            while len(launchers.told) < 2:
                await asyncio.sleep(0.005)
            yield launchers
            ours.send(Close())
            await running
    finally:
        running.cancel()
        ours.close()
        theirs.close()


async def respond(send: Send, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


async def refuse(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 400)


async def run_session(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
    async with pod.registry.admit(scope[SESSION_ID_KEY], TransportKind.DAILY) as session:
        pod.registry.begin_run(session)
        session.report = Report(Outcome.COMPLETED, "Done.", 1.5)
    await respond(send)


def play(scene: Callable[[Launchers], Any], app: App, **options: Any) -> None:
    async def whole() -> None:
        async with worker(app, **options) as launchers:
            await scene(launchers)

    asyncio.run(whole())


def test_a_worker_says_that_it_is_set_up() -> None:
    async def scene(launchers: Launchers) -> None:
        started, idle = launchers.told
        assert started == Progress(Stage.LOOP_STARTED)
        assert isinstance(idle, Progress)
        assert (idle.stage, idle.takes_files) == (Stage.IDLE, True)

    play(scene, refuse)


def test_a_worker_whose_bot_cannot_be_set_up_says_why_and_ends() -> None:
    async def scene() -> None:
        failure = SetupFailed("setup() raised.", "Read the log.")
        async with worker(refuse, failure=failure) as launchers:
            assert launchers.told[1:] == [StartupFailed.of(failure)]

    asyncio.run(scene())


def test_a_request_that_begins_no_session_is_reported_before_its_response() -> None:
    async def scene(launchers: Launchers) -> None:
        answer, told = await launchers.ask(Serve(session_id="s", number=1))
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert told == [NONE_BEGAN]
        await asyncio.sleep(0.02)
        assert launchers.told[2:] == [NONE_BEGAN], "once"

    play(scene, refuse)


def test_a_session_is_reported_before_the_response_of_the_request_that_began_it() -> None:
    async def scene(launchers: Launchers) -> None:
        answer, told = await launchers.ask(Serve(session_id="s", number=1))
        ended = SessionEnded("s", 1, "completed", "Done.", 1.5)
        states = [StateEntered("s", state, "daily", 1) for state in ("admitted", "running")]
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert told == [*states, ended]
        await asyncio.sleep(0.02)
        assert launchers.told[2:] == told, "no session that has begun is reported as none"

    play(scene, run_session)


def test_a_session_that_was_refused_is_reported_with_the_refusal() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = TooLarge("Too large.", field="body")
        with contextlib.suppress(TooLarge):
            async with pod.registry.admit("s", TransportKind.PLAIN):
                raise refusal
        scope[ON_REFUSAL](refusal)
        await respond(send, 413)

    async def scene(launchers: Launchers) -> None:
        _, told = await launchers.ask(Serve(session_id="s", number=1))
        assert told[1:] == [
            SessionEnded("s", 1, "failed", "Too large.", 0.0, None, ["too_large", "body"]),
        ]

    play(scene, app)


def test_an_app_that_fails_has_begun_no_session_either() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("x")

    async def scene(launchers: Launchers) -> None:
        answer, told = await launchers.ask(Serve(session_id="s", number=1))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert told == [NONE_BEGAN]

    play(scene, app)


def test_a_request_that_may_begin_no_session_is_not_reported() -> None:
    async def scene(launchers: Launchers) -> None:
        for request in (Serve(), Serve(session_id="s"), Serve(session_id="s", is_internal=True)):
            assert (await launchers.ask(request))[1] == []

    play(scene, refuse, internal=refuse)


def test_a_session_that_was_admitted_without_a_numbered_request_is_cancelled() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        async with pod.registry.admit("t", TransportKind.PLAIN) as session:
            session.outcome = await session.stop
        await respond(send)

    async def scene(launchers: Launchers) -> None:
        for request in (Serve(), Serve(session_id="t"), Serve(session_id="s", number=1)):
            told = (await launchers.ask(request))[1]
            assert told[:2] == [
                StateEntered("t", "admitted", "plain", 0),
                SessionEnded("t", 0, "cancelled", MESSAGES[Outcome.CANCELLED]),
            ]
            assert told[2:] == [NONE_BEGAN] * (request.number == 1)
            launchers.told[2:] = []

    play(scene, app)


def test_each_of_two_requests_for_one_session_is_reported_under_its_own_number() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/refused":
            await refuse(pod, scope, receive, send)
        else:
            await run_session(pod, scope, receive, send)

    async def scene(launchers: Launchers) -> None:
        for number, path in ((3, b"/refused"), (4, b"/bot"), (5, b"/refused")):
            await launchers.ask(Serve(session_id="s", number=number), b"POST " + path + b" HTTP/1.1")
        ended = [message for message in launchers.told if isinstance(message, SessionEnded)]
        assert [(message.number, message.outcome) for message in ended] == [(3, None), (4, "completed"), (5, None)]
        assert {message.number for message in launchers.told if isinstance(message, StateEntered)} == {4}

    play(scene, app)


@pytest.mark.parametrize("kind", ["websocket.close", "websocket.http.response.start"])
def test_a_websocket_that_begins_no_session_is_reported_before_its_refusal(kind: str) -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        if kind == "websocket.close":
            await send({"type": kind, "code": 4003})
        else:
            await send({"type": kind, "status": 403, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"no"})

    async def scene(launchers: Launchers) -> None:
        head = (
            b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\nsec-websocket-version: 13\r\n\r\n"
        )
        answer, told = await launchers.ask(Serve(session_id="s", number=1, scheme="ws", head=head))
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert told == [NONE_BEGAN]

    play(scene, app)


def test_a_session_that_was_cancelled_before_it_was_admitted_ends_at_once() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.05)
        async with pod.registry.admit("s", TransportKind.PLAIN) as session:
            session.outcome = await session.stop
        await respond(send)

    async def scene(launchers: Launchers) -> None:
        asking = asyncio.ensure_future(launchers.ask(Serve(session_id="s", number=1)))
        await asyncio.sleep(0.01)
        launchers.channel.send(Cancel("s", "drained"))
        _, told = await asking
        ended = told[-1]
        assert isinstance(ended, SessionEnded)
        assert ended.outcome == "drained"

    play(scene, app)


def test_a_cancel_of_an_earlier_session_does_not_end_the_next_one_of_its_id() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        async with pod.registry.admit("s", TransportKind.PLAIN) as session:
            assert not session.stop.done()
            session.outcome = Outcome.COMPLETED
        await respond(send)

    async def scene(launchers: Launchers) -> None:
        launchers.channel.send(Cancel("s", "drained"))
        answer, _ = await launchers.ask(Serve(session_id="s", number=1))
        assert answer.startswith(b"HTTP/1.1 200 ")

    play(scene, app)


def test_a_request_comes_with_what_only_the_launcher_knows() -> None:
    scopes: list[Scope] = []

    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await respond(send)

    async def scene(launchers: Launchers) -> None:
        request = Serve(["10.0.0.1", 5], ["10.0.0.2", 80], "https", session_id="s", flow_config="f", ice=[{"urls": []}])
        await launchers.ask(request)
        await launchers.ask(Serve())
        assert launchers.pod.given_ice == [[{"urls": []}]]

    play(scene, app)
    full, bare = scopes
    assert [full[name] for name in ("client", "server", "scheme", SESSION_ID_KEY, FLOW_CONFIG_KEY)] == [
        ("10.0.0.1", 5),
        ("10.0.0.2", 80),
        "https",
        "s",
        "f",
    ]
    assert [bare[name] for name in ("client", "server", "scheme", SESSION_ID_KEY)] == [None, None, "http", None]
    assert FLOW_CONFIG_KEY not in bare
    assert full["state"]["pool"] == "of connections"
    assert not [value for name, value in full["headers"] if name == b"host"], "the caller sent none"


@pytest.mark.parametrize("body", [b"", b"{}"])
def test_a_request_of_http_1_0_with_as_many_headers_as_may_be_and_no_host_reaches_the_app(body: bytes) -> None:
    scopes: list[Scope] = []
    answer: list[Any] = []

    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append({**scope, "body": (await receive())["body"]})
        await respond(send)

    headers = [(b"content-length", b"%d" % len(body)), *((b"x-%d" % number, b"a") for number in range(MAX_HEADERS - 1))]
    asked = {"type": "http", "http_version": "1.0", "method": "POST", "path": "/bot", "query_string": b""}

    async def scene(launchers: Launchers) -> None:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def receive() -> Any:
            return next(messages, None) or await asyncio.Event().wait()

        async def send(message: Any) -> None:
            answer.append(message.get("status") or message["body"])

        ours, workers = socket.socketpair()
        ours.setblocking(False)
        with workers:
            launchers.channel.send(Serve(session_id="s", number=1), [workers.fileno()])
        await http_proxy.forward(ours, {**asked, "headers": headers}, receive, send)

    play(scene, app)
    (scope,) = scopes
    assert answer == [200, b"{}", b""]
    assert (scope["path"], scope["body"], sorted(scope["headers"])) == ("/bot", body, sorted(headers))


def test_requests_of_the_launcher_reach_only_the_internal_app() -> None:
    served: list[str] = []

    def noting(name: str) -> App:
        async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
            served.append(f"{name} {scope['path']}")
            await respond(send)

        return app

    async def scene(launchers: Launchers) -> None:
        await launchers.ask(Serve(is_internal=True), b"GET /livez HTTP/1.1")
        await launchers.ask(Serve(), b"GET /livez HTTP/1.1")

    play(scene, noting("app"), internal=noting("internal"))
    assert served == ["internal /livez", "app /livez"]


def test_a_worker_that_is_closed_ends_its_sessions_and_lets_the_bot_tear_down() -> None:
    async def app(pod: Pod, scope: Scope, receive: Receive, send: Send) -> None:
        async with pod.registry.admit("s", TransportKind.PLAIN) as session:
            session.outcome = await session.stop
        await respond(send)

    pods: list[Pod] = []

    async def scene(launchers: Launchers) -> None:
        pods.append(launchers.pod)
        asking = asyncio.ensure_future(launchers.ask(Serve(session_id="s", number=1)))
        await asyncio.sleep(0.05)
        launchers.channel.send(Close())
        answer, told = await asking
        assert answer.startswith(b"HTTP/1.1 200 ")
        ended = told[-1]
        assert isinstance(ended, SessionEnded)
        assert ended.outcome == "drained"

    play(scene, app)
    assert pods[0].is_closed


@pytest.mark.parametrize(
    "sent", [b"", b"no HTTP\r\n\r\n", b"POST /bot HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 128 + b"\r\n"]
)
def test_a_request_that_the_worker_does_not_take_has_begun_no_session(sent: bytes) -> None:
    """The launcher may have made a head that was just short enough too long, by a Host header."""

    async def scene(launchers: Launchers) -> None:
        launchers_end, workers_end = socket.socketpair()
        with launchers_end:
            with workers_end:
                launchers.channel.send(Serve(session_id="s", number=1), [workers_end.fileno()])
            launchers_end.sendall(sent)
            launchers_end.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0.1)
            assert launchers.told[2:] == [NONE_BEGAN]

    play(scene, refuse)
