"""The CPU time that ``make bench-isolation`` counts, and how it judges what it measured."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks import cpu
from benchmarks.__main__ import ECHO, NotReady, running
from benchmarks.figures import Goal
from benchmarks.isolation import EACH, ONE, SHARED, Cpu, Judged, table
from benchmarks.steady import Steady, begin_and_end, steady

FAMILY = """
import os, subprocess, sys, time
WORK = "import sys, time\\nwhile time.process_time() < 0.4: pass\\n"
def begin(code):
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
waited_for = begin(WORK)
waited_for.communicate()
zombie = begin(WORK)
os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
far = WORK + "sys.stdin.read()"
alive = begin(f"import subprocess, sys\\nsubprocess.run([sys.executable, '-c', {far!r}])")
while time.process_time() < 0.4: pass
print("busy", flush=True)
sys.stdin.read()
alive.communicate()
zombie.wait()
"""


@contextmanager
def python(code: str) -> Iterator[subprocess.Popen[bytes]]:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def going(millicores: float, lost: float = 0) -> Steady:
    return Steady(8, millicores, 1, 0, lost, 0.05)


def test_cpu_time_is_that_of_a_process_and_all_below_it_also_of_those_that_ended() -> None:
    with python(FAMILY) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        process.stdout.readline()
        cpu.settle(process.pid)
        used = cpu.used(process.pid)
        process.stdin.close()
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    # The time of those that ended is in hundredths of a second, rounded down.
    assert used >= 4 * 0.4 - 0.02
    # To end takes a little more.
    assert used - 0.02 <= usage.ru_utime + usage.ru_stime <= used + 0.3


def test_a_launcher_that_works_is_waited_for() -> None:
    with python("import sys, time\nwhile time.process_time() < 1.2: pass\nsys.stdin.read()") as process:
        cpu.settle(process.pid)
        assert cpu.used(process.pid) >= 1.2


def test_a_process_that_ends_before_it_is_ready_is_not_waited_for() -> None:
    began = time.monotonic()
    refused = pytest.raises(NotReady, match=r"it ended with exit status \d+ before it was ready")
    with refused, running("launcher", ECHO, PIPECAT_ISOLATION="nonsense"):
        pass
    assert time.monotonic() - began < 30


@pytest.mark.needs_newest_packages
def test_a_call_that_goes_on_is_measured_apart_from_its_beginning_and_end() -> None:
    with running("launcher", ECHO) as (process, port):
        found = steady(process.pid, port, 2, seconds=0.5)
        ends = begin_and_end(process.pid, port, 2, 0.0)
    assert (found.calls, found.processes, found.changed) == (2, 1, 0)
    assert 0 < found.millicores < 1000
    # Also the echo of half a second, which takes no millicores here.
    assert ends > 0


@pytest.mark.parametrize(
    ("value", "floor", "goal", "verdict"),
    [
        (108, 100, Goal("ratio", "at most", 1.08), "met"),
        (109, 100, Goal("ratio", "at most", 1.08), "FALLS SHORT"),
        (15, 1, Goal("value", "at most", 15), "met"),
        (15.1, None, Goal("value", "at most", 15), "FALLS SHORT"),
        (None, 100, Goal("ratio", "at most", 1.08), "not measured"),
        (100, None, Goal("ratio", "at most", 1.08), "not measured"),
    ],
)
def test_a_goal_is_judged_by_what_was_measured(
    value: float | None, floor: float | None, goal: Goal, verdict: str
) -> None:
    assert Judged("a figure", "ms", goal, value, floor).verdict == verdict


def test_calls_are_judged_against_those_in_one_process() -> None:
    rates = {(ONE, 8): going(100), (EACH, 8): going(130), (ONE, 16): going(100), (SHARED, 16): going(107, lost=0.02)}
    judged = {one.title: one for one in Cpu("silero", rates, {ONE: 0.06, EACH: 0.13}).judged()}
    assert judged["silero, one call a process: CPU of a call, 8 at once"].cells[2:] == [
        *("100", "130", "1.30×", "at most 1.25×", "FALLS SHORT")
    ]
    assert judged["silero, one call a process: CPU of a call, 16 at once"].verdict == "not measured"
    assert judged["silero, eight calls a process: CPU of a call, 16 at once"].verdict == "not carried: frames were lost"
    assert judged["silero, one call a process: a call's beginning and end"].verdict == "FALLS SHORT"
    assert judged["silero, eight calls a process: a call's beginning and end"].verdict == "not measured"


def test_a_table_has_columns() -> None:
    assert table(["goal", "ms"], [["first line", "9"]]) == "goal        ms\nfirst line   9"
