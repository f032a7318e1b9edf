"""A call as an SVG picture: both sides' levels over time, and the measurements. The background is the page's."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.track import Track

WIDTH, HEIGHT, LEFT, RIGHT = 760, 300, 56, 748
FLOOR_DBFS, LANE_HEIGHT, LABEL_WIDTH = -60.0, 70, 60
CALLER_BASE, BOT_TOP = 130, 172
MIDDLE, AXIS = (CALLER_BASE + BOT_TOP) / 2, BOT_TOP + LANE_HEIGHT + 6
GREY, BLUE, ORANGE = "#8c959f", "#2f81f7", "#d4652f"
STYLE = (
    "text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#727c86}"
    f".title{{font-size:15px;font-weight:600}}.mid{{text-anchor:middle}}.mark{{fill:{ORANGE}}}"
    f".grid{{stroke:{GREY};stroke-opacity:.3}}.span{{stroke:{ORANGE};stroke-width:2;fill:none}}"
)
STEPS_SECONDS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


def draw(call: CallFigures, title: str) -> str:
    length = max(call.said.end, call.heard.end, 1.0)
    scale = (RIGHT - LEFT) / length
    about = "orange: from the end of the caller's speech to the bot's answer"
    if call.echo is not None:
        about = f"an echo, {call.echo.delay * 1000:.0f} ms late"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -2 {WIDTH + 8} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        _text(0, 17, escape(title), "title"),
        *_axis(length, scale),
        _text(0, CALLER_BASE - 4, "caller"),
        _text(0, BOT_TOP + 12, "bot"),
        _levels(call.said, scale, CALLER_BASE, -LANE_HEIGHT, GREY),
        _levels(call.heard, scale, BOT_TOP, LANE_HEIGHT, BLUE),
        _text(0, 36, about),
        *(_marks(call, scale) if call.echo is None else ()),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}">{text}</text>'


def _axis(length: float, scale: float) -> Iterator[str]:
    step = next((step for step in STEPS_SECONDS if length / step <= 12), STEPS_SECONDS[-1])
    for number in range(int(length / step) + 1):
        x = LEFT + number * step * scale
        yield f'<path class="grid" d="M{x:.1f},{CALLER_BASE - LANE_HEIGHT}V{AXIS}"/>'
        yield _text(x, AXIS + 16, f"{number * step:g} s", "mid")


def _levels(track: Track, scale: float, base: int, height: int, colour: str) -> str:
    """A bar for each pixel: its loudest piece, on a scale from FLOOR_DBFS to 0."""
    columns: dict[int, float] = {}
    for piece in track.speech():
        end = piece.at + len(piece.samples) / track.rate
        for column in range(int(piece.at * scale), int(end * scale) + 1):
            columns[column] = max(columns.get(column, FLOOR_DBFS), piece.level)
    bars = (f"M{LEFT + x + 0.5:g},{base}v{height * (1 - columns[x] / FLOOR_DBFS):.1f}" for x in sorted(columns))
    return f'<path stroke="{colour}" d="{"".join(bars)}"/>'


def _marks(call: CallFigures, scale: float) -> Iterator[str]:
    for answer in call.conversation.answers:
        x1, x2 = LEFT + answer.asked * scale, LEFT + max(answer.asked, answer.began) * scale
        yield f'<path class="span" d="M{x1:.1f},{CALLER_BASE + 4}V{MIDDLE + 8:g}H{x2:.1f}V{BOT_TOP - 4}"/>'
        fits = x2 - x1 > LABEL_WIDTH  # else the label is beside its bracket
        at, kind = ((x1 + x2) / 2, "mark mid") if fits else (x2 + 6, "mark")
        yield _text(at, MIDDLE + 3, f"{answer.latency * 1000:.0f} ms", kind)
    for interruption in call.conversation.interruptions:
        x, y, label = LEFT + interruption.at * scale, AXIS + 28, "interrupted, went on"
        if interruption.stopped is not None:
            label = f"interrupted, silent after {interruption.stopped * 1000:.0f} ms"
            yield f'<path class="span" d="M{x:.1f},{y - 12}v6H{x + interruption.stopped * scale:.1f}v-6"/>'
        yield _text(x, y + 8, label, "mark")
