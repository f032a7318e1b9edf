"""Escapes text from outside for the log."""

from __future__ import annotations

# In characters: a value from outside; a message of the launcher's, or a line of a traceback.
LONGEST_VALUE = 256
LONGEST_LINE = 4096
CUT = "..."


def logged(text: str, longest: int = LONGEST_VALUE) -> str:
    """At most ``longest`` characters, with controls, line ends and writing directions escaped. Idempotent."""
    shown = text[: longest + 1]
    if not shown.isprintable():
        shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= longest else shown[: longest - len(CUT)] + CUT


def logged_lines(text: str) -> str:
    """Escape each line; none begins with a digit, as the date of a log line does."""
    lines = (logged(line, LONGEST_LINE) for line in text.split("\n"))
    return "\n".join(f" {line}" if line[:1].isdigit() else line for line in lines)
