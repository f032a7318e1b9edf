"""Two kinds of chart as SVG: bars of a floor and a launcher with a goal, and lines.

The background is the page's: each colour stands out from white and from near black.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from benchmarks.figures import Figure, Goal, short

WIDTH = 720
TEXT, GRID, SPREAD = "#727c86", "#8c959f", "#4b535d"
FLOOR, LAUNCHER, OTHER, GOAL = "#a0a8b0", "#2f81f7", "#a371f7", "#d4652f"
STYLE = f"""text{{font:12px system-ui,-apple-system,'Segoe UI','DejaVu Sans',Helvetica,Arial,sans-serif;fill:{TEXT}}}
.title{{font-size:15px;font-weight:600}}.value{{text-anchor:end}}.missed{{fill:{GOAL};font-weight:600}}
.mid{{text-anchor:middle}}.grid{{stroke:{GRID};stroke-opacity:.3}}
.goal{{stroke:{GOAL};stroke-width:2;stroke-dasharray:4 3}}
.spread{{stroke:{SPREAD};stroke-width:1.5}}.line{{fill:none;stroke-width:2.5;stroke-linejoin:round}}"""
TOP = 74
"""Room for a title, what it shows, and the legend."""
BAR_LEFT, BAR_RIGHT = 160, 510
BAR, GAP, GROUP = 17, 3, 58
PLOT_TOP, PLOT_LEFT, PLOT_RIGHT, PLOT_HEIGHT = 94, 56, 704, 250


@dataclass(frozen=True)
class Line:
    """A line of a chart; its crosses are points that count as failed."""

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    crosses: Sequence[tuple[float, float]] = field(default=())


def ticks(most: float, *, steps: int = 5) -> list[float]:
    """Round numbers from nothing to at least ``most``."""
    raw = most / steps
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.999)
    return [number * step for number in range(math.ceil(most / step * 0.999) + 1)]


def bars(title: str, subtitle: str, names: tuple[str, str], rows: Sequence[tuple[str, Figure]]) -> str:
    """Two bars for each row, one below the other: the floor's and the launcher's."""
    goals = [figure.goal.value(figure.floor.median) for _, figure in rows if figure.goal]
    most = max(*goals, *(max(figure.floor.high, figure.launcher.high) for _, figure in rows))
    marks = ticks(most)
    scale = (BAR_RIGHT - BAR_LEFT) / marks[-1]
    bottom = TOP + GROUP * len(rows)
    legend = [(names[0], FLOOR), (names[1], LAUNCHER)]
    body = _head(title, subtitle, legend, "goal" if goals else None)
    for mark in marks:
        x = BAR_LEFT + mark * scale
        body.append(_segment("grid", x, TOP - 6, x, bottom - 10))
        body.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 6}">{_tick(mark)}</text>')
    for number, (label, figure) in enumerate(rows):
        body += _pair(label, figure, TOP + GROUP * number, scale)
    return _document(title, bottom + 18, body)


def _pair(label: str, figure: Figure, y: float, scale: float) -> list[str]:
    """A row: its name, two bars, their values, and where the goal is."""
    found = [f'<text x="0" y="{y + BAR + 6}">{escape(label)}</text>']
    for spread, colour, top in ((figure.floor, FLOOR, y), (figure.launcher, LAUNCHER, y + BAR + GAP)):
        width = spread.median * scale
        found.append(
            f'<rect x="{BAR_LEFT}" y="{top:g}" width="{width:.1f}" height="{BAR}" rx="2" fill="{colour}"/>'
            f'<text class="value" x="{WIDTH - 80}" y="{top + 13:g}">{short(spread.median)} {escape(figure.unit)}</text>'
        )
        if spread.high > spread.low:
            middle = top + BAR / 2
            found.append(
                _segment("spread", BAR_LEFT + spread.low * scale, middle, BAR_LEFT + spread.high * scale, middle)
            )
    kind = "value" if figure.met else "value missed"
    found.append(f'<text class="{kind}" x="{WIDTH - 2}" y="{y + BAR + GAP + 13:g}">{escape(figure.against)}</text>')
    if figure.goal:
        found.append(_goal(figure.goal, figure.floor.median, y, scale))
    return found


def _goal(goal: Goal, floor: float, y: float, scale: float) -> str:
    x = BAR_LEFT + goal.value(floor) * scale
    return _segment("goal", x, y - 4, x, y + 2 * BAR + GAP + 4)


def lines(
    title: str,
    subtitle: str,
    axis: str,
    unit: str,
    found: Sequence[Line],
    limit: tuple[str, float] | None = None,
) -> str:
    """Lines from nothing, and where their limit is."""
    points = [point for line in found for point in (*line.points, *line.crosses)]
    marks = ticks(max(y for _, y in points) if limit is None else max(limit[1], *(y for _, y in points)))
    right = max(x for x, _ in points)
    bottom = PLOT_TOP + PLOT_HEIGHT

    def slot(point: tuple[float, float]) -> tuple[float, float]:
        x, y = point
        return PLOT_LEFT + x / right * (PLOT_RIGHT - PLOT_LEFT), bottom - y / marks[-1] * PLOT_HEIGHT

    body = _head(title, subtitle, [(line.name, line.colour) for line in found], limit[0] if limit else None)
    for mark in marks:
        _, y = slot((0, mark))
        body.append(_segment("grid", PLOT_LEFT, y, PLOT_RIGHT, y))
        body.append(f'<text class="value" x="{PLOT_LEFT - 8}" y="{y + 4:.1f}">{_tick(mark)}</text>')
    for mark in _columns([x for x, _ in points]):
        x, _ = slot((mark, 0))
        body.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 18}">{mark:g}</text>')
    body.append(f'<text class="mid" x="{(PLOT_LEFT + PLOT_RIGHT) / 2:g}" y="{bottom + 38}">{escape(axis)}</text>')
    body.append(f'<text class="value" x="{PLOT_LEFT - 8}" y="{PLOT_TOP - 16}">{escape(unit)}</text>')
    if limit:
        _, y = slot((0, limit[1]))
        body.append(_segment("goal", PLOT_LEFT, y, PLOT_RIGHT, y))
    for line in found:
        body += _line([slot(point) for point in line.points], [slot(point) for point in line.crosses], line.colour)
    return _document(title, bottom + 48, body)


def _columns(found: Sequence[float]) -> list[float]:
    """The values that have room for their labels: each of few, every fifth of many."""
    columns = sorted(set(found))
    return columns if len(columns) <= 12 else columns[::5]


def _line(points: Sequence[tuple[float, float]], crosses: Sequence[tuple[float, float]], colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in sorted([*points, *crosses]))
    found = [f'<polyline class="line" stroke="{colour}" points="{path}"/>']
    found += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
    for x, y in crosses:
        found.append(f'<path class="line" stroke="{colour}" d="M{x - 5:.1f},{y - 5:.1f}l10,10m0,-10l-10,10"/>')
    return found


def _head(title: str, subtitle: str, legend: Sequence[tuple[str, str]], goal: str | None) -> list[str]:
    found = [f'<text class="title" x="0" y="17">{escape(title)}</text><text x="0" y="36">{escape(subtitle)}</text>']
    x = 0.0
    for name, colour in legend:
        found.append(f'<rect x="{x:g}" y="45" width="12" height="12" rx="2" fill="{colour}"/>')
        found.append(f'<text x="{x + 18:g}" y="55">{escape(name)}</text>')
        x += 46 + 6.6 * len(name)
    if goal:
        found.append(_segment("goal", x, 51, x + 18, 51) + f'<text x="{x + 24:g}" y="55">{escape(goal)}</text>')
    return found


def _segment(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path class="{kind}" d="M{x1:.1f},{y1:.1f}L{x2:.1f},{y2:.1f}"/>'


def _tick(value: float) -> str:
    return f"{value:,.10g}"


def _document(title: str, height: float, body: Sequence[str]) -> str:
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}"'
            f' viewBox="-4 -2 {WIDTH + 8} {height:g}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            *body,
            "</svg>\n",
        ]
    )
