"""``benchmarks/README.md`` and its plots, from the figures of a run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.figures import Figure, Load, Results, short
from benchmarks.plots import BARS, CONTENDERS, Bars, plots
from benchmarks.sections import METHOD, OPENING, QUICK, SECTIONS

MODES = {name: title for name, title, _ in CONTENDERS}
EFFORT = {
    "rounds": "rounds",
    "starts": "starts for the first line",
    "calls": "echo calls at once",
    "seconds": "seconds of each of them",
    "sessions": "calls for the memory that stays",
}


def write(results: Results, folder: Path) -> None:
    """The page, the plots and nothing else in their folder."""
    drawn = plots(results)
    (folder / "plots").mkdir(parents=True, exist_ok=True)
    for old in (folder / "plots").glob("*.svg"):
        old.unlink()
    for name, text in drawn.items():
        (folder / "plots" / f"{name}.svg").write_text(text)
    (folder / "README.md").write_text(page(results))


def page(results: Results) -> str:
    parts = [OPENING, QUICK if results.quick else "", _verdict(results), "## How it was measured\n", METHOD]
    parts.append(_machine(results))
    for section in SECTIONS:
        parts.append(f"## {section.title}\n{section.text}\n")
        for name in section.plots:
            parts += _plot(name, results)
    return "\n".join(part for part in parts if part)


def _verdict(results: Results) -> str:
    """How many goals are met, and what falls short."""
    judged = [figure for figure in results.figures if figure.goal]
    missed = [figure for figure in judged if not figure.met]
    carried = _carried(results)
    short_of = [(name, most) for name, most in carried.items() if most < carried["floor of calls"]]
    found = [f"- Missed: {figure.title}: {figure.against}; the goal is {figure.goal_shown}." for figure in missed]
    found += [
        f"- {MODES[name]} carried {most} calls at once, the floor {carried['floor of calls']}."
        for name, most in short_of
    ]
    verdict = f"**{len(judged) - len(missed)} of {len(judged)} goals are met.**\n"
    return "\n".join([verdict, *found, ""]) if found else verdict


def _carried(results: Results) -> dict[str, int]:
    """The most calls at once that were, by contender."""
    found = {name: [load.calls for load in results.loads if load.contender == name and load.carried] for name in MODES}
    return {name: max(calls, default=0) for name, calls in found.items()}


def _machine(results: Results) -> str:
    effort = {EFFORT[name]: _listed(value) for name, value in results.effort.items()}
    return _table(["", ""], [[name, value] for name, value in {**results.machine, **effort}.items()])


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else f"{value}"


def _plot(name: str, results: Results) -> list[str]:
    """The picture, and its figures as text."""
    found = [f"![{name.replace('-', ' ')}](plots/{name}.svg)\n"]
    if name in BARS:
        found.append(_against_floor(BARS[name], results))
    if name in TABLES:
        found.append(TABLES[name](results))
    return found


def _against_floor(plot: Bars, results: Results) -> str:
    labels = [label for label, _ in plot.rows]
    figures = results.named(*(figure for _, figure in plot.rows))
    unit = figures[0].unit
    heads = ["", f"{plot.names[0]}, {unit}", f"{plot.names[1]}, {unit}", "against the floor", "goal", "met"]
    return _table(heads, [_row(label, figure) for label, figure in zip(labels, figures, strict=True)])


def _row(label: str, figure: Figure) -> list[str]:
    met = "-" if figure.goal is None else "yes" if figure.met else "**no**"
    goal = "-" if figure.goal is None else figure.goal_shown
    return [label, short(figure.floor.median), short(figure.launcher.median), figure.against, goal, met]


def _loads(results: Results) -> str:
    heads = ["", "calls", "cores", "MB a call", "frames lost", "worst p99 gap, ms", "carried"]
    return _table(heads, [_load(load) for load in results.loads])


def _load(load: Load) -> list[str]:
    carried = "yes" if load.carried else "**no**"
    numbers = [f"{load.calls}", short(load.cores), short(load.memory), f"{load.lost}", f"{load.gap * 1000:.0f}"]
    return [MODES[load.contender], *numbers, carried]


def _waiting(results: Results) -> str:
    sizes = {name: ", ".join(short(size) for size in found) for name, found in results.waiting.items()}
    rows = [[f"`PIPECAT_PROCESS_START={name}`", found] for name, found in sizes.items()]
    return _table(["", "memory of their own (USS), the lead process and those that wait, MB"], rows)


def _held(results: Results) -> str:
    rows = [[f"{name} of memory", *map(short, (found[0], found[1], found[-1]))] for name, found in results.held.items()]
    return _table(["", "ready, MB", "after the first call, MB", "after the last, MB"], rows)


def _table(heads: list[str], rows: list[list[str]]) -> str:
    listed = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in listed)


TABLES = {"gaps": _loads, "start-processes": _waiting, "held": _held}
"""What has no floor, below the plot that it belongs to."""
