"""What was measured, as data: each figure beside its floor and its goal, and the JSON that it is kept in."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

MAX_GAP = 0.150
"""Seconds between two frames that 99 % of a call's gaps may take."""


@dataclass(frozen=True)
class Spread:
    """The median of what was measured, and the quartiles about it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, low, high)

    @classmethod
    def alone(cls, value: float) -> Spread:
        """A figure that is computed once, like a percentile."""
        return cls(value, value, value)


@dataclass(frozen=True)
class Goal:
    """How far from its floor a figure may be, as a ratio or as a difference; or how large, wherever its floor is."""

    against: Literal["ratio", "difference", "value"]
    bound: Literal["at most", "at least"]
    limit: float

    def value(self, floor: float) -> float:
        """The worst that still meets it."""
        return {"ratio": floor * self.limit, "difference": floor + self.limit, "value": self.limit}[self.against]

    def met(self, floor: float, launcher: float) -> bool:
        worst = self.value(floor)
        return launcher <= worst if self.bound == "at most" else launcher >= worst

    def shown(self, unit: str) -> str:
        ratio, difference, value = f"{self.limit:g}×", f"{self.limit:+g} {unit}", f"{self.limit:g} {unit}"
        limits = {"ratio": ratio, "difference": difference, "value": value}
        return f"{self.bound} {limits[self.against]}"


@dataclass(frozen=True)
class Figure:
    """One thing that was measured on the floor and on the launcher in turn."""

    name: str
    title: str
    unit: str
    floor: Spread
    launcher: Spread
    goal: Goal | None

    @property
    def met(self) -> bool:
        """Also where there is no goal."""
        return self.goal is None or self.goal.met(self.floor.median, self.launcher.median)

    @property
    def against(self) -> str:
        """The launcher against the floor, as the goal compares them."""
        floor, launcher = self.floor.median, self.launcher.median
        if self.goal and self.goal.against == "difference":
            return f"{launcher - floor:+.2f} {self.unit}"
        return f"{launcher / floor:.2f}×"

    @property
    def goal_shown(self) -> str:
        return self.goal.shown(self.unit) if self.goal else "none"

    def __str__(self) -> str:
        floor, launcher = self.floor.median, self.launcher.median
        return (
            f"{self.title:44} floor {floor:9.2f}  launcher {launcher:9.2f} {self.unit:9} {self.against:>12}"
            f"   goal {self.goal_shown}"
        )


@dataclass(frozen=True)
class Load:
    """So many echo calls at once, and what they took.

    Attributes:
        cores: CPU time in a second, of the launcher and all below it.
        memory: MB for each call.
        lost: Frames that did not come back.
        gap: Seconds between two frames, the worst call's 99th percentile.
    """

    contender: str
    calls: int
    cores: float
    memory: float
    lost: int
    gap: float

    @property
    def carried(self) -> bool:
        return self.lost <= 0 and self.gap <= MAX_GAP

    def __str__(self) -> str:
        return (
            f"{self.calls} echo calls, {self.contender}: {self.cores:.2f} cores, {self.memory:.1f} MB a call,"
            f" {self.lost} frames lost, worst p99 gap {self.gap * 1000:.0f} ms (goal {MAX_GAP * 1000:.0f})"
        )


@dataclass(frozen=True)
class Results:
    """A run.

    Attributes:
        quick: It shows that the benchmarks work; its figures are not to be judged.
        machine: What it ran on.
        effort: How often each thing was measured.
        waiting: MB of its own that each process has which waits for a call, by how it was started.
        held: MB resident when ready, then after each call, without the release of memory and with it.
    """

    quick: bool
    machine: dict[str, str]
    effort: dict[str, Any]
    figures: list[Figure]
    loads: list[Load]
    waiting: dict[str, list[float]]
    held: dict[str, list[float]]

    def named(self, *names: str) -> list[Figure]:
        found = {figure.name: figure for figure in self.figures}
        return [found[name] for name in names]

    def to_json(self) -> str:
        # Hundredths of a frame, a millisecond or a MB are noise.
        return json.dumps(_rounded(asdict(self)), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Results:
        found = json.loads(text)
        found["figures"] = [_figure(figure) for figure in found["figures"]]
        found["loads"] = [Load(**load) for load in found["loads"]]
        return cls(**found)


def _figure(found: dict[str, Any]) -> Figure:
    goal = Goal(**found["goal"]) if found["goal"] else None
    spreads = {which: Spread(**found[which]) for which in ("floor", "launcher")}
    return Figure(**{**found, **spreads, "goal": goal})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def short(value: float) -> str:
    """Three digits that count, and thousands with a comma."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"
