"""Admission, running and ending, without a server."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from pipecat_base.bot.arguments import RunnerArguments
from pipecat_base.errors import AtCapacity, Draining, DuplicateSession, Refusal, Starting
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.lifecycle import LifecycleState as LauncherState
from pipecat_base.sessions import registry
from pipecat_base.sessions.outcome import BotError, Outcome, Report
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.sessions.transports import TransportKind
from tests.support.parts import Bot, Sessions, make_sessions


def make(bot: Bot, **options: Any) -> Sessions:
    return make_sessions(bot, **{"disconnects": (ConnectionError,), **options})


async def run(sessions: Sessions, session_id: str = "s", **options: Any) -> Report:
    async with sessions.admit(session_id, TransportKind.PLAIN, **options) as session:
        return await sessions.run(session, RunnerArguments())


async def forever(args: Any) -> None:
    await asyncio.Event().wait()


def raising(error: BaseException) -> Bot:
    async def bot(args: Any) -> None:
        raise error

    return bot


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ValueError("x"), Outcome.FAILED),
        (KeyboardInterrupt(), Outcome.FAILED),
        (GeneratorExit(), Outcome.FAILED),
        (SystemExit(1), Outcome.FAILED),
        (SystemExit("text"), Outcome.FAILED),
        (SystemExit(0), Outcome.COMPLETED),
        (SystemExit(), Outcome.COMPLETED),
        (asyncio.CancelledError(), Outcome.CANCELLED),
        (ConnectionResetError(), Outcome.DISCONNECTED),
        (BaseException("x"), Outcome.FAILED),
        (StopAsyncIteration(), Outcome.FAILED),
        (ExceptionGroup("x", [ConnectionResetError(), ConnectionAbortedError()]), Outcome.DISCONNECTED),
        (ExceptionGroup("x", [ConnectionResetError(), ValueError()]), Outcome.FAILED),
        (ExceptionGroup("x", [ConnectionResetError(), ExceptionGroup("y", [ValueError()])]), Outcome.FAILED),
    ],
)
def test_whatever_the_bot_raises_becomes_an_outcome(error: BaseException, outcome: Outcome) -> None:
    async def main() -> None:
        sessions = make(raising(error))
        assert (await run(sessions)).outcome is outcome
        assert len(sessions) == 0

    asyncio.run(main())


def test_a_message_for_the_caller_quotes_nothing() -> None:
    report = asyncio.run(run_once(raising(ValueError("secret"))))
    assert "secret" not in report.message


async def run_once(bot: Bot, **options: Any) -> Report:
    return await run(make(bot), **options)


def test_the_states_of_a_session() -> None:
    seen: list[SessionState] = []

    async def main() -> Session:
        async def bot(args: Any) -> None:
            seen.append(session.state)

        sessions = make(bot)
        async with sessions.admit("s", TransportKind.PLAIN) as session:
            seen.append(session.state)
            await sessions.run(session, RunnerArguments())
        return session

    session = asyncio.run(main())
    assert seen == [SessionState.ADMITTED, SessionState.RUNNING]
    assert (session.state, session.outcome) == (SessionState.ENDED, Outcome.COMPLETED)


def test_a_slot_is_freed_however_the_scope_ends() -> None:
    async def main() -> None:
        sessions = make(forever, max_sessions=1)
        for error in (ValueError(), KeyboardInterrupt(), SystemExit(), asyncio.CancelledError()):
            with pytest.raises(type(error)):
                async with sessions.admit("s", TransportKind.PLAIN):
                    assert sessions.full
                    raise error
            assert len(sessions) == 0

    asyncio.run(main())


def test_refusals_leave_nothing_behind() -> None:
    async def main() -> None:
        sessions = make(forever, max_sessions=1)
        async with sessions.admit("one", TransportKind.PLAIN):
            with pytest.raises(DuplicateSession) as duplicate:
                await run(sessions, "one")
            assert duplicate.value.session_id == "one"
            with pytest.raises(AtCapacity):
                await run(sessions, "two")
            assert len(sessions) == 1
        assert await sessions.until_empty(0.1)

    asyncio.run(main())


def test_the_registry_is_not_empty_while_a_slot_is_held() -> None:
    async def main() -> None:
        async def bot(args: Any) -> None: ...

        sessions = make(bot)
        async with sessions.admit("held", TransportKind.DAILY):  # its room is being made, say
            await run(sessions, "short")
            assert not await sessions.until_empty(0.02)
        assert await sessions.until_empty(0.1)

    asyncio.run(main())


def test_only_so_many_ends_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_REPORTS", 3)

    async def main() -> None:
        async def bot(args: Any) -> None: ...

        sessions = make(bot)
        for name in ("first", "second", "third"):
            await run(sessions, name)
        assert sessions.report("first") is not None
        await run(sessions, "fourth")
        assert sessions.report("first") is None
        assert all(sessions.report(name) is not None for name in ("second", "third", "fourth"))

    asyncio.run(main())


@pytest.mark.parametrize("keeps", [False, True])
def test_bot_errors_are_kept_only_in_development(keeps: bool) -> None:
    async def main() -> None:
        kept = registry.SessionRegistry(
            max_sessions=None, max_seconds=None, refusal=lambda: None, keeps_bot_errors=keeps
        )
        async with kept.admit("a", TransportKind.PLAIN) as session:
            session.report = Report(Outcome.FAILED, "The bot failed.", 1.0, BotError("KeyError: 'a secret'", ()))
        report = kept.report("a")
        assert report is not None
        assert (report.bot_error is not None) is keeps

    asyncio.run(main())


def test_after_the_last_session_a_new_one_is_still_refused_as_draining() -> None:
    lifecycle = Lifecycle()
    lifecycle.ready()
    assert lifecycle.refusal() is None
    lifecycle.drain()
    lifecycle.stopped()
    assert lifecycle.state is LauncherState.STOPPED
    assert isinstance(lifecycle.refusal(), Draining)


@pytest.mark.parametrize(("state", "refusal"), [("starting", Starting), ("draining", Draining)])
def test_the_launchers_state_decides_before_anything_else(state: str, refusal: type[Refusal]) -> None:
    async def main() -> None:
        lifecycle = Lifecycle()
        sessions = make(forever, refusal=lifecycle.refusal, max_sessions=1)
        if state == "draining":
            lifecycle.ready()
            async with sessions.admit("one", TransportKind.PLAIN):
                lifecycle.drain()
                with pytest.raises(refusal):
                    await run(sessions, "two")
        else:
            with pytest.raises(refusal):
                await run(sessions, "two")

    asyncio.run(main())


def test_the_launchers_states_only_move_forward() -> None:
    lifecycle = Lifecycle()
    states = []
    for step in (lifecycle.drain, lifecycle.ready, lifecycle.failed, lifecycle.stopped, lifecycle.drain):
        step()
        states.append(lifecycle.state)
    assert states == [LauncherState.DRAINING] * 3 + [LauncherState.STOPPED] * 2


def test_of_many_at_once_exactly_as_many_run_as_there_are_slots() -> None:
    async def main() -> list[object]:
        async def bot(args: Any) -> None:
            await asyncio.sleep(0.05)

        sessions = make(bot, max_sessions=3)
        attempts = [run(sessions, str(n)) for n in range(50)]
        return await asyncio.gather(*attempts, return_exceptions=True)

    results = asyncio.run(main())
    assert sum(isinstance(result, Report) for result in results) == 3
    assert sum(isinstance(result, AtCapacity) for result in results) == 47


def test_cancel_by_id() -> None:
    async def main() -> None:
        sessions = make(forever)
        running = asyncio.ensure_future(run(sessions, "a"))
        await asyncio.sleep(0)
        assert [session.id for session in sessions] == ["a"]
        assert sessions.cancel("nobody") is False
        assert sessions.cancel("a") is True
        assert sessions.cancel("a", Outcome.DRAINED) is True  # the first reason counts
        assert (await running).outcome is Outcome.CANCELLED
        assert sessions.cancel("a") is False

    asyncio.run(main())


def test_a_session_cancelled_before_its_run_never_runs_long() -> None:
    async def main() -> None:
        sessions = make(forever)
        async with sessions.admit("a", TransportKind.PLAIN) as session:
            sessions.cancel("a", Outcome.DRAINED)
            report = await sessions.run(session, RunnerArguments())
        assert report.outcome is Outcome.DRAINED

    asyncio.run(main())


@pytest.mark.parametrize(
    ("of_launcher", "of_request", "seconds"), [(0.1, None, 0.1), (None, 0.1, 0.1), (0.1, 9, 0.1), (9, 0.1, 0.1)]
)
def test_the_shorter_limit_counts(of_launcher: float | None, of_request: float | None, seconds: float) -> None:
    async def main() -> Report:
        return await run(make(forever, max_seconds=of_launcher), max_seconds=of_request)

    report = asyncio.run(main())
    assert report.outcome is Outcome.EXPIRED
    assert seconds <= report.seconds < seconds + 0.5


def test_a_bot_that_fails_while_it_is_cancelled_was_cancelled() -> None:
    async def bot(args: Any) -> None:
        try:
            await forever(args)
        finally:
            raise ValueError("in finally")

    async def main() -> Report:
        return await run(make(bot, max_seconds=0.05))

    assert asyncio.run(main()).outcome is Outcome.EXPIRED


def test_closers_run_in_reverse_order_with_the_outcome() -> None:
    closed: list[tuple[str, Outcome]] = []

    async def main() -> None:
        async def bot(args: Any) -> None: ...

        sessions = make(bot)
        async with sessions.admit("s", TransportKind.PLAIN) as session:
            for name in ("first", "second"):

                async def close(outcome: Outcome, name: str = name) -> None:
                    closed.append((name, outcome))
                    if name == "second":
                        raise RuntimeError("closing fails")

                session.add_closer(close)
            await sessions.run(session, RunnerArguments())

    asyncio.run(main())
    assert closed == [("second", Outcome.COMPLETED), ("first", Outcome.COMPLETED)]


def test_a_route_that_is_cancelled_takes_its_bot_with_it() -> None:
    ended = False

    async def bot(args: Any) -> None:
        nonlocal ended
        try:
            await forever(args)
        finally:
            ended = True

    async def main() -> None:
        sessions = make(bot)
        route = asyncio.ensure_future(run(sessions))
        await asyncio.sleep(0.02)
        route.cancel()
        with pytest.raises(asyncio.CancelledError):
            await route
        assert len(sessions) == 0

    asyncio.run(main())
    assert ended


def test_an_ordinary_wrapper_that_returns_a_coroutine_is_awaited() -> None:
    ran = []

    async def inner(args: Any) -> None:
        ran.append(args)

    def wrapper(args: Any) -> Any:
        return inner(args)

    async def main() -> None:
        await run(make(wrapper))

    asyncio.run(main())
    assert len(ran) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with Python 3.12")
def test_eager_tasks_change_nothing() -> None:
    async def main() -> Report:
        eager: Any = vars(asyncio)["eager_task_factory"]
        asyncio.get_running_loop().set_task_factory(eager)
        return await run(make(raising(ValueError())))

    assert asyncio.run(main()).outcome is Outcome.FAILED


def test_after_each_runs_before_the_slot_is_free_and_its_failure_is_harmless() -> None:
    async def main() -> None:
        seen: list[bool] = []

        async def after() -> None:
            await asyncio.sleep(0)
            seen.append(sessions.get("s") is not None and len(sessions) == 1)
            raise ValueError("of no account")

        async def bot(args: Any) -> None: ...

        sessions = make(bot, on_session_closed=after)
        assert (await run(sessions)).outcome is Outcome.COMPLETED
        assert seen == [True]
        assert len(sessions) == 0
        assert len(sessions) == 0

    asyncio.run(main())


class Heard(list[Any]):
    """The states of sessions that a listener has heard of."""

    def __call__(self, session: Session) -> None:
        self.append((session.state.value, session.transport.value, session.report is not None))


def test_listeners_hear_nothing_of_a_session_that_is_not_announced_and_no_report_is_kept() -> None:
    async def main() -> None:
        closed: list[str] = []

        async def after() -> None:
            closed.append("after")

        async def closer(outcome: Outcome) -> None:
            closed.append("closer")

        heard, sessions = Heard(), make(forever, max_sessions=1, on_session_closed=after)
        sessions.on_change(heard)
        async with sessions.admit("s", TransportKind.PLAIN, announce=False) as session:
            session.add_closer(closer)
            assert sessions.full, "it holds its slot"
            with pytest.raises(DuplicateSession):
                await run(sessions, "s")
        with pytest.raises(AtCapacity):
            async with sessions.admit("s", TransportKind.PLAIN, announce=False) as session:
                session.outcome = Outcome.FAILED
                raise AtCapacity("Elsewhere.")
        assert (heard, sessions.past(), sessions.report("s")) == ([], [], None)
        assert closed == ["closer"]
        assert session.state is SessionState.ENDED
        assert await sessions.until_empty(0.1)

    asyncio.run(main())


def test_an_announced_session_is_heard_of_once_with_its_transport_and_has_a_report() -> None:
    async def main() -> None:
        heard, sessions = Heard(), make(forever)
        sessions.on_change(heard)
        async with sessions.admit("s", TransportKind.PLAIN, announce=False) as session:
            sessions.announce(session, TransportKind.DAILY)
            sessions.announce(session, TransportKind.WEBRTC)
            sessions.begin_run(session)
            session.report = Report(Outcome.COMPLETED, "", 1.0)
        assert heard == [("admitted", "daily", False), ("running", "daily", False), ("ended", "daily", True)]
        assert [past.transport for past in sessions.past()] == [TransportKind.DAILY]

    asyncio.run(main())


def test_the_announcement_of_a_session_that_was_admitted_with_one_changes_nothing() -> None:
    async def main() -> None:
        heard, sessions = Heard(), make(forever)
        sessions.on_change(heard)
        async with sessions.admit("s", TransportKind.PLAIN) as session:
            sessions.announce(session, TransportKind.DAILY)
        assert heard == [("admitted", "plain", False), ("ended", "plain", True)]

    asyncio.run(main())
