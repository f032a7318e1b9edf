"""docs/reference is made from the code: ``make reference``."""

from __future__ import annotations

import sys
from subprocess import run as execute

import pytest

from pipecat_base.errors import Refusal, StartupError, refusals, startup_errors
from pipecat_base.sessions.outcome import MEANINGS, Outcome
from pipecat_base.telemetry.call_report import FIELDS, CallReport
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.metrics import Metrics
from tests.support.launchers import ROOT, run


def test_the_reference_is_current() -> None:
    checked = execute(
        [sys.executable, "scripts/reference.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize(("command", "page"), [("settings", "settings.md"), ("errors", "errors.md")])
def test_programs_print_what_the_reference_has(command: str, page: str) -> None:
    printed = run(command, "--format", "markdown", cwd=ROOT).stdout.split("\n")
    assert set(_rows(printed)) <= set(_rows((ROOT / "docs" / "reference" / page).read_text().split("\n")))


def _rows(lines: list[str]) -> list[str]:
    return [line for line in lines if line.startswith("| ")]


def _all(kind: type[Exception]) -> set[type[Exception]]:
    children = kind.__subclasses__()
    return {*children, *(found for child in children for found in _all(child))}


@pytest.mark.parametrize("refusal", refusals(), ids=lambda refusal: refusal.code)
def test_every_refusal_says_what_it_means_and_what_to_do(refusal: type[Refusal]) -> None:
    assert refusal.meaning.endswith(".")
    assert refusal.advice.endswith(".")


def test_no_failure_is_missing_and_no_code_is_used_twice() -> None:
    assert set(refusals()) == _all(Refusal)
    assert set(startup_errors()) == _all(StartupError)
    assert len({refusal.code for refusal in refusals()}) == len(refusals())
    assert len({error.exit_status for error in startup_errors()}) == len(startup_errors())


def test_every_metric_has_a_meaning_and_advice() -> None:
    metrics = Metrics().listed()
    assert [m.name for m in metrics if not m.meaning] == []
    # Which versions run is neither good nor bad.
    assert [m.name for m in metrics if not m.when_bad] == ["pipecat_build_info"]


def test_every_outcome_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Outcome)


def test_every_field_of_a_report_has_a_meaning() -> None:
    report = CallReport(Event("session_admitted", "1", {"transport": "plain"}), content=True)
    assert list(report.end(Event("session_ended", "1", {"outcome": "completed"}))) == list(FIELDS)
