"""A call as an SVG picture: both sides' levels over time, and what was measured. The background is the page's."""

from __future__ import annotations

from html import escape

from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.speech import Interruption, SpokenAnswer
from pipecat_base.cli.call.track import Track

WIDTH, HEIGHT, LEFT, RIGHT = 760, 300, 56, 748
FLOOR_DBFS, LANE_HEIGHT = -60.0, 70
CALLER_BASE, BOT_TOP = 130, 172
AXIS = BOT_TOP + LANE_HEIGHT + 6
LABEL_WIDTH = 60
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
    marks: list[str] = []
    if call.echo is not None:
        about = f"an echo, {call.echo.delay * 1000:.0f} ms late"
    else:
        marks += [_answer(answer, scale) for answer in call.conversation.answers]
        marks += [_interruption(interruption, scale) for interruption in call.conversation.interruptions]
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
        *marks,
        "</svg>\n",
    ]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:g}">{text}</text>'


def _axis(length: float, scale: float) -> list[str]:
    step = next((step for step in STEPS_SECONDS if length / step <= 12), STEPS_SECONDS[-1])
    parts = []
    for number in range(int(length / step) + 1):
        x = LEFT + number * step * scale
        parts.append(f'<path class="grid" d="M{x:.1f},{CALLER_BASE - LANE_HEIGHT}V{AXIS}"/>')
        parts.append(_text(x, AXIS + 16, f"{number * step:g} s", "mid"))
    return parts


def _levels(track: Track, scale: float, base: int, height: int, colour: str) -> str:
    """A bar for each pixel: its loudest piece, on a scale from FLOOR_DBFS to 0."""
    columns: dict[int, float] = {}
    for piece in track.speech():
        end = piece.at + len(piece.samples) / track.rate
        for column in range(int(piece.at * scale), int(end * scale) + 1):
            columns[column] = max(columns.get(column, FLOOR_DBFS), piece.level)
    bars = "".join(
        f"M{LEFT + column + 0.5:g},{base}v{height * (1 - level / FLOOR_DBFS):.1f}"
        for column, level in sorted(columns.items())
    )
    return f'<path stroke="{colour}" d="{bars}"/>'


def _answer(answer: SpokenAnswer, scale: float) -> str:
    """A bracket between the two lanes, its label inside, or beside it where it is too narrow."""
    x1, x2 = LEFT + answer.asked * scale, LEFT + max(answer.asked, answer.began) * scale
    middle, label = (CALLER_BASE + BOT_TOP) / 2, f"{answer.latency * 1000:.0f} ms"
    fits = x2 - x1 > LABEL_WIDTH
    return f'<path class="span" d="M{x1:.1f},{CALLER_BASE + 4}V{middle + 8:g}H{x2:.1f}V{BOT_TOP - 4}"/>' + _text(
        (x1 + x2) / 2 if fits else x2 + 6, middle + 3, label, "mark mid" if fits else "mark"
    )


def _interruption(interruption: Interruption, scale: float) -> str:
    """A bracket below the bot's lane, from the caller's word to the bot's silence."""
    x, y = LEFT + interruption.at * scale, AXIS + 28
    if interruption.stopped is None:
        return _text(x, y + 8, "interrupted, went on", "mark")
    end = x + interruption.stopped * scale
    label = f"interrupted, silent after {interruption.stopped * 1000:.0f} ms"
    return f'<path class="span" d="M{x:.1f},{y - 12}v6H{end:.1f}v-6"/>' + _text(x, y + 8, label, "mark")
