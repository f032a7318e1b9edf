"""deploy/kubernetes on a real cluster of one node: what happens to phone calls when pods go."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from tests.support.launchers import until
from tests.system.kubernetes.cluster import PATIENCE, Bot, kubectl, running
from tests.system.kubernetes.exchange import NEWCOMERS, Calls, Exchange, Newcomers

PODS = 4
CALLS = 20
ROOMY = {"MAX_SESSIONS": str(2 * (CALLS + NEWCOMERS))}
"""The Service picks pods by chance: with places for all in each, and for those that wind down, each is taken."""
KUBE_PROXY = int(os.environ.get("KUBE_PROXY_PID", "0"))
TOLD = 15.0
"""Seconds until each pod that goes has got SIGTERM: preStop takes ten of them."""
LATE = 6.0
"""Seconds; preStop waits for longer."""
HEARD = 3.0
"""Seconds until the node's rules follow what pods say of themselves: a probe each second, a change of rules each."""


@pytest.fixture(scope="module")
def shared() -> Iterator[Bot]:
    with Bot(PODS, **ROOMY) as bot:
        yield bot


@pytest.fixture
def bot(shared: Bot) -> Iterator[Bot]:
    """Four ready pods, and none that still ends."""
    shared.scale(PODS)
    shared.wait_for_pods(PODS)
    shared.wait_for_end_of(shared.going())
    with shared.prints_warnings():
        yield shared


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    with Exchange() as exchange:
        yield exchange


def none_was_cut_or_refused(what: str, calls: Calls, newcomers: Newcomers) -> None:
    print(f"\n  {calls.line(what)}\n  {newcomers.line()}")
    assert calls.refused() + newcomers.refused() == []
    assert calls.cut() + newcomers.calls.cut() == []
    assert [call for call in calls.answered() + newcomers.calls.answered() if call.received != call.sent] == []


def test_a_pod_has_no_more_rights_than_it_needs(bot: Bot) -> None:
    pod, *_ = bot.pods()
    status = bot.kubectl("exec", pod.name, "--", "sh", "-c", "id -u; touch /app/x 2>&1; cat /proc/self/status")
    user, touched, *lines = status.splitlines()
    found = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert user == "10001"
    assert "Read-only file system" in touched
    assert {found[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")


def test_calls_outlast_a_rolling_update(bot: Bot, exchange: Exchange) -> None:
    old = bot.staying()
    with exchange.newcomers(bot.address) as newcomers:
        calls = exchange.slot(*[bot.address] * CALLS)
        bot.kubectl("set", "env", "deployment/bot", "RELEASE=2")
        bot.kubectl("rollout", "status", "deployment/bot", f"--timeout={PATIENCE:g}s")
        assert not old & bot.staying()
        time.sleep(TOLD)
        calls.hang_up()
    none_was_cut_or_refused("a rolling update", calls, newcomers)
    bot.wait_for_end_of(old)


def test_calls_outlast_a_scale_in_by_half(bot: Bot, exchange: Exchange) -> None:
    with exchange.newcomers(bot.address) as newcomers:
        calls = exchange.slot(*[bot.address] * CALLS)
        bot.scale(PODS // 2)
        gone = until(lambda: len(bot.going()) == PODS // 2 and bot.going(), "half of the pods go")
        time.sleep(TOLD)
        calls.hang_up()
    none_was_cut_or_refused("a scale-in by half", calls, newcomers)
    bot.wait_for_end_of(gone)


def test_calls_outlast_the_drain_of_a_node(bot: Bot, exchange: Exchange) -> None:
    old = bot.staying()
    (node,) = kubectl("get", "nodes", "-o", "name").split()
    # The steps below have bounds of their own, 292 s in all; the command's own limit outlasts them.
    limit = 3 * PATIENCE
    drain = ["drain", node, f"--pod-selector={bot.label}", "--delete-emptydir-data", f"--timeout={limit:g}s"]
    with exchange.newcomers(bot.address) as newcomers:
        calls = exchange.slot(*[bot.address] * CALLS)
        with running(*drain) as draining:
            try:
                # There is no other node for the pod that takes its place: the budget holds up the next eviction.
                until(lambda: bot.names(lambda pod: not pod.is_placed), "a pod waits for a node")
                with pytest.raises(AssertionError):
                    until(lambda: len(bot.going()) > 1, "a second one goes", timeout=7)
            finally:
                # As if one had come: from now on each eviction waits for a ready pod, and has it.
                kubectl("uncordon", node)
            until(lambda: not old & bot.staying(), "each was evicted", PATIENCE)
            time.sleep(TOLD)
            calls.hang_up()
            said, _ = draining.communicate(timeout=PATIENCE)
            assert draining.returncode == 0, said
    none_was_cut_or_refused("a drained node", calls, newcomers)


@pytest.mark.skipif(not KUBE_PROXY, reason="this machine lacks a kube-proxy that can be halted: KUBE_PROXY_PID")
def test_a_node_that_hears_late_refuses_no_call(bot: Bot, exchange: Exchange) -> None:
    old = bot.staying()
    with exchange.newcomers(bot.address) as newcomers:
        calls = exchange.slot(*[bot.address] * CALLS)
        os.kill(KUBE_PROXY, signal.SIGSTOP)
        try:
            bot.scale(PODS // 2)
            until(lambda: len(bot.going()) == PODS // 2, "half of the pods go")
            time.sleep(LATE)
        finally:
            os.kill(KUBE_PROXY, signal.SIGCONT)
        time.sleep(TOLD)
        calls.hang_up()
    none_was_cut_or_refused(f"a scale-in that the node hears of {LATE:g} s late", calls, newcomers)
    bot.wait_for_end_of(old - bot.staying())


@dataclass(frozen=True)
class ScaleIn:
    """Two full pods, then two empty ones beside them, then a scale-in to two."""

    before: Calls
    """New ones, one after the other, before the scale-in."""
    took_the_full: bool
    took_the_empty: bool
    after: Calls
    """New ones after it."""
    long: Calls
    """Those that filled the pods."""


PLACES = 3
"""In each pod: more than a caller who comes again at once still holds while the bot winds down."""
STARTING = threading.Lock()
"""Starts take all of a small node: one after the other, or pods that serve miss their probes."""


def scale_in(name: str, variables: dict[str, str]) -> ScaleIn:
    with contextlib.ExitStack() as stack:
        exchange = stack.enter_context(Exchange())
        with STARTING:
            bot = stack.enter_context(Bot(2, MAX_SESSIONS=str(PLACES), **variables))
        full = bot.staying()
        lines = [stack.enter_context(bot.forwarded(name)) for name in full]
        long = exchange.slot(*lines * PLACES, tail=0)
        with STARTING:
            bot.scale(4)
            until(lambda: len(bot.names()) == 4, "two more pods")
            empty = bot.names() - full
            serving = empty | full if variables.get("READY_WHEN_FULL") == "true" else empty
            until(lambda: bot.staying() == serving, "pods are ready as they should be", PATIENCE)
        time.sleep(HEARD)
        before = exchange.place_in_turn(bot.address, 12)
        until(lambda: bot.staying() == serving, "the last of them is over")
        assert long.ended() == 0
        bot.scale(2)
        gone = until(lambda: len(bot.going()) == 2 and bot.going(), "two pods go")
        time.sleep(HEARD)
        after = exchange.place_in_turn(bot.address, 6)
        if "SHUTDOWN_TIMEOUT" in variables:  # they end soon, with their calls if they have any
            bot.wait_for_end_of(gone)
        time.sleep(TOLD + 5)
        long.hang_up()
        print(
            f"\n  {name}: {variables or ''}"
            f"\n  {before.line('two pods full, two empty')}"
            f"\n  of {len(full)} full pods the scale-in takes {len(full & gone)}"
            f"\n  {after.line('after it')}\n  of {len(long.placed)} long calls {len(long.cut())} are cut"
        )
        return ScaleIn(before, gone == full, gone == empty, after, long)


@pytest.fixture(scope="module")
def scale_ins() -> dict[str, ScaleIn]:
    """Side by side: they mostly wait."""
    cases = {
        "as the manifests are": {},
        "too short": {"SHUTDOWN_TIMEOUT": "5"},
        "ready when full": {"SHUTDOWN_TIMEOUT": "5", "READY_WHEN_FULL": "true"},
    }
    with ThreadPoolExecutor() as pool:
        return dict(zip(cases, pool.map(scale_in, cases, cases.values()), strict=True))


def test_as_the_manifests_are_a_scale_in_takes_full_pods_and_cuts_no_call(scale_ins: dict[str, ScaleIn]) -> None:
    found = scale_ins["as the manifests are"]
    assert found.before.refused() == found.after.refused() == []
    assert found.took_the_full
    assert found.long.cut() == []


def test_with_too_short_a_shutdown_timeout_it_cuts_the_calls_of_full_pods(scale_ins: dict[str, ScaleIn]) -> None:
    found = scale_ins["too short"]
    assert found.before.refused() == found.after.refused() == []
    assert found.took_the_full
    assert found.long.cut() == found.long.answered()


def test_with_ready_when_full_it_spares_full_pods_but_calls_are_refused(scale_ins: dict[str, ScaleIn]) -> None:
    found = scale_ins["ready when full"]
    assert found.before.refused()
    assert len(found.after.refused()) == 6
    assert all("at_capacity" in words for words in found.before.refused() + found.after.refused())
    assert found.took_the_empty
    assert found.long.cut() == []
