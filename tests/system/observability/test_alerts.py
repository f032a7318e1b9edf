"""Each alert fires when a real launcher is in trouble, and no alert while all is well.

The rules are those that are shipped, but for their durations: see ``shortened``. ``test_rules.py`` has the real ones.
"""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Any

import httpx
import pytest

from pipecat_base.cli.call import audio
from tests.support.launchers import BOTS, PYTHON, ROOT, Launcher, environment, free_port, until
from tests.support.tones import tone
from tests.system.observability.prometheus import Prometheus, needs_prometheus, rules

pytestmark = needs_prometheus
AT_ONCE = 3
"""Faults that are tried at the same time: they wait more than they compute."""
TRIES = 3
"""Of each: a machine that is busy with something else is slow indeed, and alerts that say so are right."""
LOOKS = 8
"""How often alerts are evaluated while all is well."""
LOSSY = Path(__file__).with_name("lossy.py")

OBSERVED = (BOTS / "observed" / "bot.py").read_text()
ECHO = (ROOT / "examples" / "echo" / "bot.py").read_text()
SLEEPER = "import asyncio\n\n\nasync def bot(args):\n    await asyncio.sleep((args.body or {}).get('seconds', 0))\n"
SLOW_WHEN_TOLD = """
from pathlib import Path


async def setup():
    slow = Path("slow")
    await asyncio.sleep(float(slow.read_text()) if slow.exists() else 0)
"""
PROCESSES = {"PIPECAT_ISOLATION": "process", "PIPECAT_IDLE_PROCESSES": "1"}


class Scene:
    """A launcher, and a Prometheus that looks at it."""

    def __init__(self, folder: Path, variables: dict[str, Any], scope: ExitStack) -> None:
        self.folder = folder
        self.port, self.metrics = free_port(), free_port()
        self._variables = variables
        self._scope = scope
        self._pool = scope.enter_context(ThreadPoolExecutor(20))
        self.begin()
        # The first call loads models, and holds up the loop for that.
        self.call({})
        self.prometheus = scope.enter_context(Prometheus(folder / "prometheus", self.metrics))

    def begin(self, *, wait: bool = True) -> None:
        """A launcher, in the place of the one before."""
        shared = {"PIPECAT_ISOLATION": "none", "PIPECAT_ICE_SERVERS": "[]", "DRAIN_NOTICE": "0"}
        self.launcher = self._scope.enter_context(
            Launcher(
                self.folder,
                wait=wait,
                port=self.port,
                PIPECAT_METRICS_PORT=str(self.metrics),
                **{**shared, **self._variables},
            )
        )

    def end(self) -> None:
        """Kill it."""
        self.launcher.signal(SIGKILL)
        self.launcher.wait()

    def post(self, body: Any, times: int = 1) -> list[Future[httpx.Response]]:
        """So many calls at once, which go on while the test does."""
        return [self._pool.submit(self.launcher.post, body) for _ in range(times)]

    def call(self, body: Any, times: int = 1) -> list[int]:
        """So many calls at once, to their ends; the status of each."""
        return [answer.result().status_code for answer in self.post(body, times)]

    def ring(self, *command: str | Path) -> None:
        """A call of three seconds by WebRTC."""
        recording = self.folder / "tone.wav"
        audio.write_wav(str(recording), tone(500, 3.0, 16000), 16000)
        url = f"http://127.0.0.1:{self.port}/api/offer"
        line = [PYTHON, *command, "call", recording, "--webrtc", "--url", url, "--tail", "1"]
        ended = subprocess.run(
            [*map(str, line)], env=environment(), cwd=ROOT, check=False, capture_output=True, text=True
        )
        # 1 where the network let nothing but silence through.
        assert ended.returncode == 0 or "heard silence alone" in ended.stdout, ended.stdout + ended.stderr

    def sees(self, expression: str, what: str) -> None:
        """Wait until Prometheus does."""
        until(lambda: self.prometheus.query(expression), what)


def many_calls(scene: Scene) -> None:
    began = time.monotonic()
    while time.monotonic() - began < 12:
        assert scene.call({"turns": 2, "interrupted": True}, 2) == [200, 200]


def is_killed(scene: Scene) -> None:
    scene.end()


def restarts(scene: Scene) -> None:
    for times in range(1, 4):
        scene.end()
        scene.begin()
        scene.sees(f"changes(process_start_time_seconds[1m]) >= {times}", "the restart")


def waits_in_setup(scene: Scene) -> None:
    scene.end()
    (scene.folder / "slow").write_text("30")
    scene.begin(wait=False)


def drains(scene: Scene) -> None:
    scene.post({"seconds": 30})
    scene.sees("sum(pipecat_sessions_active) == 1", "the call")
    scene.launcher.signal()


def bots_raise(scene: Scene) -> None:
    assert scene.call({"raise": "boom"}, 4) == [500] * 4


def all_places_are_taken(scene: Scene) -> None:
    scene.post({"seconds": 30}, 2)


def one_caller_more(scene: Scene) -> None:
    all_places_are_taken(scene)
    scene.sees("sum(pipecat_sessions_active) == 2", "the calls")
    assert scene.call({}) == [429]


def answers_are_slow(scene: Scene) -> None:
    assert scene.call({"think": 2.5}, 12) == [200] * 12


def services_fail(scene: Scene) -> None:
    assert scene.call({"error": "no answer"}, 6) == [200] * 6


def a_key_has_expired(scene: Scene) -> None:
    assert scene.call({"error": "no access", "category": "authentication"}) == [200]


def the_loop_is_blocked_again_and_again(scene: Scene) -> None:
    for _ in range(8):
        assert scene.call({"block": 1, "return": True}) == [200]


def the_loop_stands_still(scene: Scene) -> None:
    scene.post({"block": 18, "return": True})


def processes_start_slowly(scene: Scene) -> None:
    (scene.folder / "slow").write_text("1.5")
    assert scene.call({}, 4) == [200] * 4


def no_process_comes_in_time(scene: Scene) -> None:
    (scene.folder / "slow").write_text("5")
    assert sorted(scene.call({}, 3)) == [200, 503, 503]


def packets_are_lost(scene: Scene) -> None:
    scene.ring(LOSSY)


@dataclass(frozen=True)
class Fault:
    """What is done to a launcher, and which alerts tell of it.

    Attributes:
        alerts: Those that must fire.
        others: Those that may.
        well: What is done before, that must not be told of.
    """

    do: Callable[[Scene], None]
    alerts: set[str]
    others: set[str] = field(default_factory=set)
    bot: str = SLEEPER
    variables: dict[str, Any] = field(default_factory=dict)
    well: Callable[[Scene], Any] = lambda scene: scene.call({}, 2)

    @property
    def name(self) -> str:
        return self.do.__name__.replace("_", " ")


FAULTS = [
    Fault(the_loop_stands_still, {"PipecatEventLoopStuck", "PipecatEventLoopBlocked"}, bot=OBSERVED),
    Fault(
        many_calls, set(), bot=OBSERVED, variables={**PROCESSES, "PIPECAT_IDLE_PROCESSES": "4", "MAX_SESSIONS": "10"}
    ),
    Fault(packets_are_lost, {"PipecatWebRTCLoss"}, bot=ECHO, well=lambda scene: scene.ring("-m", "pipecat_base")),
    Fault(answers_are_slow, {"PipecatSlowAnswers"}, bot=OBSERVED),
    Fault(the_loop_is_blocked_again_and_again, {"PipecatEventLoopBlocked"}, bot=OBSERVED),
    Fault(services_fail, {"PipecatPipelineErrors"}, bot=OBSERVED),
    Fault(a_key_has_expired, {"PipecatServiceAccessDenied"}, bot=OBSERVED),
    Fault(bots_raise, {"PipecatBotFailures"}, bot=OBSERVED),
    Fault(is_killed, {"PipecatLauncherDown"}),
    Fault(restarts, {"PipecatLauncherRestarts"}, {"PipecatLauncherDown"}),
    Fault(waits_in_setup, {"PipecatLauncherNotReady"}, {"PipecatLauncherDown"}, bot=SLEEPER + SLOW_WHEN_TOLD),
    Fault(drains, {"PipecatDrainLong"}, variables={"SHUTDOWN_TIMEOUT": "30"}),
    Fault(all_places_are_taken, {"PipecatNearlyFull"}, variables={"MAX_SESSIONS": "2"}),
    Fault(one_caller_more, {"PipecatNearlyFull", "PipecatCallersTurnedAway"}, variables={"MAX_SESSIONS": "2"}),
    Fault(
        processes_start_slowly,
        {"PipecatProcessWaitLong", "PipecatSlowStarts", "PipecatNoIdleProcess"},
        bot=SLEEPER + SLOW_WHEN_TOLD,
        variables=PROCESSES,
    ),
    Fault(
        no_process_comes_in_time,
        {"PipecatCallersTurnedAway", "PipecatNoIdleProcess"},
        bot=SLEEPER + SLOW_WHEN_TOLD,
        variables={**PROCESSES, "PIPECAT_PROCESS_TIMEOUT": "1"},
    ),
]


@dataclass(frozen=True)
class Seen:
    """What Prometheus made of it.

    Attributes:
        well: Alerts that fired while all was well.
        after: Seconds from the fault to each alert that must fire.
        fired: All that did, but for those that may.
    """

    well: set[str]
    after: dict[str, float]
    fired: set[str]


def play(fault: Fault, folder: Path) -> Seen:
    folder.mkdir()
    (folder / "bot.py").write_text(fault.bot)
    with ExitStack() as scope:
        scene = Scene(folder, fault.variables, scope)
        fault.well(scene)
        scene.sees(f"count_over_time(up[1m]) >= {LOOKS}", "enough looks at it")
        well = scene.prometheus.fired()
        began = time.monotonic()
        doing = scope.enter_context(ThreadPoolExecutor(1)).submit(fault.do, scene)
        after: dict[str, float] = {}

        def all_fire() -> bool:
            for alert in fault.alerts & scene.prometheus.firing():
                after.setdefault(alert, time.monotonic() - began)
            return after.keys() == fault.alerts

        until(all_fire, f"{fault.alerts} after {fault.name}")
        doing.result()
        fired = scene.prometheus.fired() | after.keys()
        scene.end()
        return Seen(well, after, fired - fault.others)


def play_again(fault: Fault, folder: Path) -> Seen:
    """Until it goes as it should, or for the last time."""
    for number in range(TRIES - 1):
        with contextlib.suppress(AssertionError):
            seen = play(fault, folder.with_name(f"{folder.name}-{number}"))
            if not seen.well and seen.fired == fault.alerts:
                return seen
        print(f"{fault.name}: once more")
    return play(fault, folder)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Seen]]]:
    folder = tmp_path_factory.mktemp("alerts")
    numbers = itertools.count()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        plays = {fault.name: pool.submit(play_again, fault, folder / str(next(numbers))) for fault in FAULTS}
        yield plays
    print(f"\n\n{'fault':36} {'alert':30} seconds until it fired")
    for name, future in plays.items():
        if future.exception() is None:
            for alert, seconds in future.result().after.items():
                print(f"{name:36} {alert:30} {seconds:.1f}")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_alert_fires_in_its_fault_and_not_before(fault: Fault, played: dict[str, Future[Seen]]) -> None:
    seen = played[fault.name].result()
    assert seen.well == set()
    assert seen.fired == fault.alerts


def test_each_alert_has_a_fault() -> None:
    assert {rule["alert"] for rule in rules()} == set[str]().union(*(fault.alerts for fault in FAULTS))
