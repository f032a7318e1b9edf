"""``make bench-report``: all benchmarks, and ``benchmarks/README.md`` with its plots made from their figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeVar

from benchmarks import capacity, memory, starts
from benchmarks.__main__ import HERE, compare
from benchmarks.figures import Results
from benchmarks.machine import events
from benchmarks.page import write

T = TypeVar("T")


@dataclass(frozen=True)
class Effort:
    """How often each thing is measured.

    Attributes:
        starts: Starts of a session, for its first line.
        calls: Echo calls at once.
        seconds: What each of them says.
        sessions: Calls after each other, for the memory that stays.
    """

    rounds: int
    starts: int
    calls: tuple[int, ...]
    seconds: float
    sessions: int


FULL = Effort(rounds=16, starts=60, calls=capacity.COUNTS, seconds=12, sessions=20)
QUICK = Effort(rounds=2, starts=10, calls=(1, 4), seconds=6, sessions=2)


def measure(effort: Effort, *, quick: bool) -> Results:
    machine = events()
    figures = _told(compare(effort.rounds))
    figures += _told(starts.first_lines(effort.starts))
    figures += _told([starts.start(effort.rounds)])
    loads = _told(capacity.loads(effort.calls, effort.seconds))
    figures += _told([capacity.calls_per_machine(loads)])
    waiting = dict(_told(starts.waiting(), lambda found: starts.shown(*found)))
    held = dict(_told(memory.held(effort.sessions, 3), lambda found: memory.shown(*found)))
    return Results(quick, machine, asdict(effort), figures, loads, waiting, held)


def _told(found: Iterable[T], shown: Callable[[T], str] = str) -> list[T]:
    """All of it, each printed when it is there."""
    everything = []
    for one in found:
        print(shown(one), flush=True)
        everything.append(one)
    return everything


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("--from", dest="source", type=Path, metavar="FILE", help="the figures of a run, not a new one")
    parser.add_argument("--rounds", type=int, help="of what is measured in turn")
    parser.add_argument("--quick", action="store_true", help="show that it works")
    parser.add_argument(
        "--out", type=Path, default=HERE, metavar="FOLDER", help="where README.md, plots and figures go"
    )
    options = parser.parse_args()
    if options.source:
        write(Results.from_json(options.source.read_text()), options.out)
        return
    effort = QUICK if options.quick else FULL
    if options.rounds:
        effort = replace(effort, rounds=options.rounds)
    results = measure(effort, quick=options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "results.json").write_text(results.to_json())
    # From what was kept: a figure that was rounded there is rounded here.
    write(Results.from_json(results.to_json()), options.out)


if __name__ == "__main__":
    main()
