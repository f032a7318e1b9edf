"""What may be told: the bounds of texts, lists, amounts and times."""

from __future__ import annotations

import time
from typing import Any

import pytest

from pipecat_base.telemetry.events import LARGEST, LONGEST_TRANSCRIPT, MOST_ENTRIES, SKEW, Event, make_event


def told(name: str, at: float | None = None, **fields: Any) -> Event:
    found = make_event(name, "s", fields, at)
    assert found is not None
    return found


def test_long_transcripts_and_lists_are_cut() -> None:
    assert told("transcript", text="x" * 3 * LONGEST_TRANSCRIPT).fields == {"text": "x" * LONGEST_TRANSCRIPT}
    timings = [{"processor_name": "a"}] * 3 * MOST_ENTRIES
    assert told("startup_timing", processor_timings=timings).fields == {"processor_timings": timings[:MOST_ENTRIES]}


@pytest.mark.parametrize("value", [-1, -0.001, True, "1", 10 * LARGEST, float("inf"), float("nan")])
def test_what_is_no_amount_is_left_out(value: Any) -> None:
    """A negative amount would break a counter."""
    assert told("turn", number=value).fields == {}


def test_a_silence_is_no_transcript() -> None:
    assert told("transcript", text=" \n", role="user").fields == {"role": "user"}


@pytest.mark.parametrize("skew", [-2 * SKEW, 2 * SKEW, float("nan")])
def test_a_time_that_cannot_be_is_now(skew: float) -> None:
    before = time.time()
    assert before <= told("turn", at=before + skew).at <= time.time()


def test_a_time_of_just_now_is_kept() -> None:
    at = time.time() - SKEW / 4
    assert told("turn", at=at).at == at
