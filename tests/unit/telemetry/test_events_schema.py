"""Bounds of the fields of events: texts, lists, amounts and times."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipecat_base.telemetry.events import (
    MAX_CLOCK_SKEW_SECONDS,
    MAX_LIST_ENTRIES,
    MAX_NUMBER,
    MAX_TRANSCRIPT_CHARACTERS,
    Event,
    make_event,
)


def made(name: str, at: float | None = None, **fields: Any) -> Event:
    found = make_event(name, "s", fields, at)
    assert found is not None
    return found


def test_long_transcripts_and_lists_are_cut() -> None:
    assert made("transcript", text="x" * 3 * MAX_TRANSCRIPT_CHARACTERS).fields == {
        "text": "x" * MAX_TRANSCRIPT_CHARACTERS
    }
    timings = [{"processor_name": "a"}] * 3 * MAX_LIST_ENTRIES
    assert made("startup_timing", processor_timings=timings).fields == {"processor_timings": timings[:MAX_LIST_ENTRIES]}


@pytest.mark.parametrize("value", [-1, -0.001, True, "1", 10 * MAX_NUMBER, float("inf"), float("nan")])
def test_a_value_that_is_no_amount_is_left_out(value: Any) -> None:
    """A negative amount would break a counter."""
    assert made("turn", number=value).fields == {}


def test_a_silence_is_no_transcript() -> None:
    assert made("transcript", text=" \n", role="user").fields == {"role": "user"}


@pytest.mark.parametrize("skew", [-2 * MAX_CLOCK_SKEW_SECONDS, 2 * MAX_CLOCK_SKEW_SECONDS, float("nan")])
def test_an_implausible_time_becomes_now(skew: float) -> None:
    before = time.time()
    assert before <= made("turn", at=before + skew).at <= time.time()


def test_a_time_of_just_now_is_kept() -> None:
    at = time.time() - MAX_CLOCK_SKEW_SECONDS / 4
    assert made("turn", at=at).at == at
