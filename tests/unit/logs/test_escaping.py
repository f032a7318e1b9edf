"""Text from outside, as the log may show it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pipecat_base.logs.escaping import LONGEST_LINE, LONGEST_VALUE, logged, logged_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("café, 日本", "café, 日本"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J\x9b\x85", r"\x1b[2J\x9b\x85"),
        ("\u2028\u2029\u202e\u2066\ufeff", r"\u2028\u2029\u202e\u2066\ufeff"),
        ("\ud800", r"\ud800"),
        ("\U000e0001", r"\U000e0001"),
    ],
)
def test_what_draws_nothing_is_escaped_once(text: str, shown: str) -> None:
    assert logged(text) == shown
    assert logged(shown) == shown


@pytest.mark.parametrize("text", ["x" * 1_000_000, "\x1b" * 1_000_000, "\x1b" * LONGEST_VALUE])
def test_what_is_long_is_cut(text: str) -> None:
    assert len(logged(text)) == LONGEST_VALUE
    assert logged(text).endswith("...")
    assert len(logged("x" * LONGEST_VALUE)) == LONGEST_VALUE
    assert not logged("x" * LONGEST_VALUE).endswith("...")


def test_lines_of_a_traceback_stay_lines_and_none_looks_like_one_of_the_log() -> None:
    text = "ValueError: a\r\n2026-11-28 13:15:48.000 | CRITICAL | x\n  at \x1b" + "\n" + "x" * 1_000_000
    first, second, third, last = logged_lines(text).split("\n")
    assert (first, second, third) == (r"ValueError: a\r", " 2026-11-28 13:15:48.000 | CRITICAL | x", r"  at \x1b")
    assert len(last) == LONGEST_LINE


SAYS = """
import logging

from pipecat_base.logs.logger import Logs

Logs("DEBUG").configure()
said = "from loguru import logger; logger.info({0!r}); logger.opt(exception=ValueError({0!r})).error({0!r})"
for name in ("pipecat_base.new", "bot"):
    exec(said.format("\\x1b[2J\\n2026-11-28 13:15:48.000 " + "x" * 10_000), {"__name__": name})
logging.getLogger("bot").warning("\\x1b[2J\\n2026-11-28 13:15:48.000 " + "x" * 10_000)
"""


def test_every_line_of_the_launchers_is_fit_for_the_log_and_the_bots_are_left_alone() -> None:
    log = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, check=True).stderr
    ours, theirs = log.split("| bot:", 1)
    assert ours.count("\x1b") == 0
    assert ours.count("\n2026-11-28") == 0
    assert max(map(len, ours.splitlines())) < LONGEST_LINE + 200
    assert theirs.count("\x1b[2J\n2026-11-28 13:15:48.000 " + "x" * 10_000) == 4
