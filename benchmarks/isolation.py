"""``make bench-isolation``: calls in one process, in a process each, and eight in a process, all in one run.

What calls use while they go on is counted apart from what each uses to begin and to end. CPU time is that of the
launcher and all its processes, those that ended included; the callers' does not count. The launchers of all modes run
at once and are called in turn, because a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import psutil

from benchmarks import starts
from benchmarks.__main__ import NotReady, running
from benchmarks.figures import Goal, Spread, short
from benchmarks.starts import percentile
from benchmarks.steady import BOTS, Steady, begin_and_end, steady
from pipecat_base.cli.call.figures import CallError
from pipecat_base.config.settings import variables

ONE, EACH, SHARED = "in-process", "one call a process", "eight calls a process"
MODES = {
    ONE: {"PIPECAT_ISOLATION": "none"},
    EACH: {"PIPECAT_ISOLATION": "process"},
    SHARED: {"PIPECAT_ISOLATION": "process", "PIPECAT_CALLS_PER_PROCESS": "8"},
}
PARTS = ("cpu", "first-line", "burst", "ready", "memory")
BURST = 20
"""Calls at once, with four processes waiting."""
BURSTS = 5
PAUSE = 0.4
"""Seconds between two first lines: a process waits for each."""
ENDS = 8
"""Calls after each other, for what one uses to begin and to end."""


@dataclass(frozen=True)
class Judged:
    """A goal and what was measured for it.

    Attributes:
        value: None was not measured.
        floor: In-process, in the same run.
        doubt: Why the figure is not to be judged.
    """

    title: str
    unit: str
    goal: Goal
    value: float | None
    floor: float | None
    doubt: str = ""

    @property
    def verdict(self) -> str:
        if self.value is None or (self.floor is None and self.goal.against == "ratio"):
            return "not measured"
        return self.doubt or ("met" if self.goal.met(self.floor or 0, self.value) else "FALLS SHORT")

    @property
    def cells(self) -> list[str]:
        ratio = (
            "-" if self.value is None or self.floor is None or self.floor <= 0 else f"{self.value / self.floor:.2f}×"
        )
        figures = ["-" if figure is None else short(figure) for figure in (self.floor, self.value)]
        return [self.title, self.unit, *figures, ratio, self.goal.shown(self.unit), self.verdict]


@dataclass
class Cpu:
    """What calls of one bot use, by mode."""

    bot: str
    going: dict[tuple[str, int], Steady] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)

    def judged(self) -> Iterator[Judged]:
        if self.bot == "silero":
            for count in sorted({count for _, count in self.going}):
                yield self._going(EACH, count, 1.25)
        yield self._going(SHARED, 16, 1.08)
        for mode in (EACH, SHARED):
            title = f"{self.bot}, {mode}: a call's beginning and end"
            goal = Goal("value", "at most", 0.12)
            yield Judged(title, "CPU s", goal, self.ends.get(mode), self.ends.get(ONE))

    def _going(self, mode: str, count: int, limit: float) -> Judged:
        both = [self.going.get((name, count)) for name in (mode, ONE)]
        value, floor = (None if one is None else one.millicores for one in both)
        doubt = "not carried: frames were lost" if any(one is not None and not one.carried for one in both) else ""
        title = f"{self.bot}, {mode}: CPU of a call, {count} at once"
        return Judged(title, "millicores", Goal("ratio", "at most", limit), value, floor, doubt)

    def rows(self) -> Iterator[list[str]]:
        order = list(MODES)
        for mode, count in sorted(self.going, key=lambda at: (at[1], order.index(at[0]))):
            found, floor = self.going[mode, count], self.going.get((ONE, count))
            ratio = f"{found.millicores / floor.millicores:.2f}×" if floor else "-"
            numbers = [short(found.millicores), ratio, f"{found.processes}"]
            state = [f"{found.changed}", f"{found.lost:.1%}", f"{found.gap * 1000:.0f}"]
            yield [self.bot, mode, f"{count}", *numbers, *state]


def measure_cpu(bot: str, counts: Sequence[int], seconds: float) -> Cpu:
    found = Cpu(bot)
    samples: dict[tuple[str, int], list[Steady]] = {}
    with contextlib.ExitStack() as stack:
        launchers = {mode: at for mode in MODES if (at := _launched(stack, bot, mode)) is not None}
        for number, count in enumerate(counts):
            for mode in list(launchers)[:: 1 if number % 2 == 0 else -1]:
                with _told(f"{bot}, {mode}, {count} at once"):
                    going = steady(*launchers[mode], count, seconds)
                    samples.setdefault((mode, count), []).append(going)
                    print(f"{bot}, {mode}, {count} at once: {going.millicores:.1f} millicores a call", flush=True)
        for key, measured in samples.items():
            found.going[key] = sorted(measured, key=lambda one: one.millicores)[len(measured) // 2]
        for mode, launcher in launchers.items():
            if (mode, 1) in found.going:
                with _told(f"{bot}, {mode}, to begin and end"):
                    found.ends[mode] = begin_and_end(*launcher, ENDS, found.going[mode, 1].millicores)
                    print(f"{bot}, {mode}: {found.ends[mode]:.3f} CPU s to begin and end", flush=True)
    return found


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """One figure that cannot be had costs no other."""
    try:
        yield
    except (CallError, NotReady, psutil.Error) as problem:
        print(f"{what}: not measured, {problem}", flush=True)


def _launched(stack: contextlib.ExitStack, bot: str, mode: str) -> tuple[int, int] | None:
    """The process and the port; None if this launcher has no such mode."""
    with _told(f"{bot}, {mode}"):
        if unknown := MODES[mode].keys() - {field.metadata["name"] for field in variables()}:
            raise NotReady(f"this launcher has no {', '.join(unknown)}")
        process, port = stack.enter_context(running("launcher", BOTS[bot], **MODES[mode]))
        return process.pid, port
    return None


def judge_first_line(count: int) -> Iterator[Judged]:
    one, many = (starts.first_line(MODES[mode], count, PAUSE) for mode in (ONE, EACH))
    for percent, limit in ((50, 15), (95, 50)):
        title = f"first line, a process waiting: p{percent}"
        goal = Goal("value", "at most", limit)
        yield Judged(title, "ms", goal, percentile(many, percent), percentile(one, percent))


def judge_burst() -> Iterator[Judged]:
    one, many = (percentile(starts.burst(MODES[mode], BURST, BURSTS), 95) for mode in (ONE, EACH))
    yield Judged(f"first line, {BURST} at once, four waiting: p95", "ms", Goal("value", "at most", 600), many, one)


def judge_ready(rounds: int) -> Iterator[Judged]:
    one, many = (Spread.of(times).median for times in starts.ready(rounds).values())
    yield Judged("realistic bot: ready", "ms", Goal("ratio", "at most", 1.10), many, one)


def judge_memory() -> Iterator[Judged]:
    # Four wait, and the process that answers for all has more: the median is of those that wait.
    private = Spread.of(starts.waiting_memory("auto", idle=4)).median
    yield Judged("private memory of a process that waits", "MB", Goal("value", "at most", 12), private, None)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) if number == 0 else cell.rjust(width) for number, (cell, width) in enumerate(pairs))
        for pairs in (zip(row, widths, strict=True) for row in (heads, *rows))
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--bots", nargs="+", choices=BOTS, default=list(BOTS))
    parser.add_argument(
        "--calls",
        nargs="+",
        type=int,
        default=[1, 8, 16],
        help="at once; a number that is there three times is measured as often, and its median counts; without 1 among"
        " them, beginnings and ends are not measured",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="that calls are looked at while they go on")
    parser.add_argument("--starts", type=int, default=40, help="first lines")
    parser.add_argument("--rounds", type=int, default=4, help="of ready times")
    options = parser.parse_args()
    judged: list[Judged] = []
    if "first-line" in options.parts:
        judged += judge_first_line(options.starts)
    if "burst" in options.parts:
        judged += judge_burst()
    if "ready" in options.parts:
        judged += judge_ready(options.rounds)
    if "memory" in options.parts:
        judged += judge_memory()
    if "cpu" in options.parts:
        found = [measure_cpu(bot, options.calls, options.seconds) for bot in options.bots]
        heads = ["bot", "mode", "calls", "millicores a call", "ratio", "processes", "changed", "lost", "gap, ms"]
        print("", table(heads, [row for cpu in found for row in cpu.rows()]), sep="\n")
        judged += [one for cpu in found for one in cpu.judged()]
    heads = ["goal", "unit", ONE, "measured", "ratio", "goal is", ""]
    print("", table(heads, [one.cells for one in judged]), sep="\n")


if __name__ == "__main__":
    main()
