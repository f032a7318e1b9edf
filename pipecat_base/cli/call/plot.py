"""A call as a picture: both sides' levels over time, with what was measured marked. The background is the page's."""

from __future__ import annotations

from html import escape

from pipecat_base.cli.call.figures import CallFigures
from pipecat_base.cli.call.track import Track

WIDTH, LEFT, RIGHT = 760, 56, 748
LANE = 70
"""Height of one side's lane; a level is a bar up to this, from :data:`FLOOR` to 0 dBFS."""
FLOOR = -60.0
CALLER_BASE, BOT_TOP = 130, 172
HEIGHT = 300
NARROW = 60
TEXT, GRID, CALLER, BOT, MARK = "#727c86", "#8c959f", "#8c959f", "#2f81f7", "#d4652f"
STYLE = (
    f"text{{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:{TEXT}}}"
    f".title{{font-size:15px;font-weight:600}}.mid{{text-anchor:middle}}.mark{{fill:{MARK}}}"
    f".grid{{stroke:{GRID};stroke-opacity:.3}}.span{{stroke:{MARK};stroke-width:2;fill:none}}"
)
STEPS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)


def draw(call: CallFigures, title: str) -> str:
    """The SVG of one call."""
    length = max(call.said.end, call.heard.end, 1.0)
    scale = (RIGHT - LEFT) / length
    body = [f'<text class="title" x="0" y="17">{escape(title)}</text>']
    body += _axis(length, scale)
    body.append(f'<text x="0" y="{CALLER_BASE - 4}">caller</text>')
    body.append(f'<text x="0" y="{BOT_TOP + 12}">bot</text>')
    body.append(_levels(call.said, scale, CALLER_BASE, -1, CALLER))
    body.append(_levels(call.heard, scale, BOT_TOP, 1, BOT))
    if call.echo is not None:
        body.append(f'<text x="0" y="36">an echo, {call.echo.delay * 1000:.0f} ms late</text>')
    else:
        body.append('<text x="0" y="36">orange: from the end of the caller\'s speech to the bot\'s answer</text>')
        for answer in call.conversation.answers:
            body.append(_span(answer.asked, answer.began, f"{answer.latency * 1000:.0f} ms", scale))
        for interruption in call.conversation.interruptions:
            body.append(_interruption(interruption.at, interruption.stopped, scale))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-4 -2 {WIDTH + 8} {HEIGHT}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>{STYLE}</style>",
            *body,
            "</svg>\n",
        ]
    )


def _axis(length: float, scale: float) -> list[str]:
    step = next((step for step in STEPS if length / step <= 12), STEPS[-1])
    bottom = BOT_TOP + LANE + 6
    found = []
    for number in range(int(length / step) + 1):
        x = LEFT + number * step * scale
        found.append(f'<path class="grid" d="M{x:.1f},{CALLER_BASE - LANE}V{bottom}"/>')
        found.append(f'<text class="mid" x="{x:.1f}" y="{bottom + 16}">{number * step:g} s</text>')
    return found


def _levels(track: Track, scale: float, base: int, direction: int, colour: str) -> str:
    """A bar for each pixel: the loudest of its pieces."""
    columns: dict[int, float] = {}
    for piece in track.speech():
        first = int(piece.at * scale)
        for column in range(first, int((piece.at + piece.count / track.rate) * scale) + 1):
            columns[column] = max(columns.get(column, FLOOR), piece.level)
    bars = "".join(
        f"M{LEFT + column + 0.5:g},{base}v{direction * LANE * (level - FLOOR) / -FLOOR:.1f}"
        for column, level in sorted(columns.items())
    )
    return f'<path stroke="{colour}" d="{bars}"/>'


def _span(begin: float, end: float, label: str, scale: float) -> str:
    """A bracket between the two lanes."""
    x1, x2 = LEFT + begin * scale, LEFT + max(begin, end) * scale
    middle = (CALLER_BASE + BOT_TOP) / 2
    # Where the bracket is too narrow for its label, that stands beside it.
    slot, anchor = ((x1 + x2) / 2, "middle") if x2 - x1 > NARROW else (x2 + 6, "start")
    return (
        f'<path class="span" d="M{x1:.1f},{CALLER_BASE + 4}V{middle + 8:g}H{x2:.1f}V{BOT_TOP - 4}"/>'
        f'<text class="mark" text-anchor="{anchor}" x="{slot:.1f}" y="{middle + 3:g}">{label}</text>'
    )


def _interruption(at: float, stopped: float | None, scale: float) -> str:
    """Below the bot's lane: from the caller's word to the bot's silence."""
    x, y = LEFT + at * scale, BOT_TOP + LANE + 34
    if stopped is None:
        return f'<text class="mark" x="{x:.1f}" y="{y + 8}">interrupted, went on</text>'
    end = x + stopped * scale
    label = f"interrupted, silent after {stopped * 1000:.0f} ms"
    return (
        f'<path class="span" d="M{x:.1f},{y - 12}v6H{end:.1f}v-6"/>'
        f'<text class="mark" x="{x:.1f}" y="{y + 8}">{label}</text>'
    )
