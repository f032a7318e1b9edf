"""The one observer that the setup file adds to a pipeline."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.support.launchers import ROOT


def run(scenario: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "tests.support.launchers_together", scenario, *arguments]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def test_each_observer_gets_every_call_but_those_of_audio() -> None:
    start = ["process StartFrame", "push StartFrame"]
    text = ["process TextFrame", "push TextFrame"]
    assert run("all_events") == [["setup", *start, *text, "started", "cleanup"]] * 2


def test_no_observer_uses_frames_that_are_not_passed_on() -> None:
    assert run("looked_at") == []


def test_repeated_pushes_reach_observers_that_want_them_until_all_processors_have_started() -> None:
    assert run("repeated_pushes") == {
        "once": [],
        "always": ["push StartFrame"],
        "asks_for_every_push": [True, False],
    }


@pytest.mark.parametrize("at", ["setup", "push TextFrame", "cleanup"])
def test_an_observer_that_fails_is_left_out_with_a_log_line(at: str) -> None:
    found = run("failing", at)
    assert found["failing"].count(at) == 1
    assert found["failing"][-1] == at
    assert found["other"] == ["setup", "push TextFrame", "push TextFrame", "cleanup"]
    (line,) = found["log"]
    assert line.startswith("WARNING")
    assert "Inner failed and is left out: KeyError" in line


@pytest.mark.parametrize("heard", ["", "yes"], ids=["unheard", "heard"])
def test_a_pipeline_gets_one_observer_more(heard: str) -> None:
    assert run("added", heard) == ["CombinedObserver"]
