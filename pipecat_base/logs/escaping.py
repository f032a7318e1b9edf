"""Text from outside, as the log may show it: on one line, escaped, and no longer than it is worth."""

from __future__ import annotations

LONGEST_VALUE = 256
"""Characters of one value."""
LONGEST_LINE = 4096
"""Characters of a message of the launcher's, and of a line of a traceback."""
CUT = "..."
"""Stands for the rest."""


def logged(text: str, longest: int = LONGEST_VALUE) -> str:
    """The text with escapes for characters that draw nothing: controls, line ends, directions of writing.

    Never longer than ``longest``. Text that has been here before comes back unchanged.
    """
    shown = text[: longest + 1]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= longest else shown[: longest - len(CUT)] + CUT


def logged_lines(text: str) -> str:
    """Each line of the text as :func:`logged` gives it; none begins as a line of the log does, with a date."""
    lines = (logged(line, LONGEST_LINE) for line in text.split("\n"))
    return "\n".join(f" {line}" if line[:1].isdigit() else line for line in lines)
