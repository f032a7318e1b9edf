"""Log lines that would repeat."""

from __future__ import annotations

from pipecat_base.logs.throttle import LogThrottle


def test_a_line_is_admitted_once_in_an_interval_and_the_next_one_counts_those_left_out() -> None:
    clock = iter((0.0, 1.0, 9.9, 10.0, 19.0, 20.0, 30.0))
    throttle = LogThrottle(10.0, clock=lambda: next(clock))
    assert [throttle.admit("full") for _ in range(7)] == [
        "full",
        None,
        None,
        "full (and 2 times more since the last such line)",
        None,
        "full (and 1 times more since the last such line)",
        "full",
    ]


def test_lines_of_different_kinds_do_not_wait_for_each_other() -> None:
    throttle = LogThrottle(10.0, clock=lambda: 0.0)
    assert [throttle.admit(message) for message in ("a", "b", "a")] == ["a", "b", None]
    assert [throttle.admit(message, kind="k") for message in ("a", "b")] == ["a", None]
