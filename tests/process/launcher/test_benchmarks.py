"""The page of the benchmarks is what its figures make it."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.figures import Figure, Goal, Load, Results, Spread
from benchmarks.page import page, write
from benchmarks.plots import plots
from benchmarks.sections import SECTIONS
from benchmarks.svg import ticks
from tests.support.launchers import ROOT

BENCHMARKS = ROOT / "benchmarks"
MAX_PLOT_BYTES = 40_000


@pytest.fixture(scope="module")
def results() -> Results:
    return Results.from_json((BENCHMARKS / "results.json").read_text())


def figure(floor: float, launcher: float, goal: Goal | None, unit: str = "ms") -> Figure:
    return Figure("dispatch", "a figure", unit, Spread.alone(floor), Spread.alone(launcher), goal)


def texts(folder: Path) -> dict[str, str]:
    made = [folder / "README.md", *(folder / "plots").iterdir()]
    return {str(path.relative_to(folder)): path.read_text() for path in made}


def test_the_page_and_the_plots_are_what_the_figures_make_them(results: Results, tmp_path: Path) -> None:
    write(results, tmp_path)
    again = "make them again: python -m benchmarks.report --from benchmarks/results.json"
    assert texts(tmp_path) == texts(BENCHMARKS), again


def test_figures_come_back_from_json_as_they_were(results: Results) -> None:
    assert Results.from_json(results.to_json()) == results
    assert results.to_json() == (BENCHMARKS / "results.json").read_text()


def test_a_plot_that_is_no_longer_made_goes(results: Results, tmp_path: Path) -> None:
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "old.svg").write_text("<svg/>")
    write(results, tmp_path)
    assert "plots/old.svg" not in texts(tmp_path)


def test_every_plot_is_a_small_picture_on_the_page(results: Results) -> None:
    drawn = plots(results)
    assert sorted(drawn) == sorted(name for section in SECTIONS for name in section.plots)
    for text in drawn.values():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert len(text) < MAX_PLOT_BYTES


@pytest.mark.parametrize(
    ("goal", "floor", "launcher", "met", "against"),
    [
        (Goal("ratio", "at most", 1.1), 100, 110, True, "1.10×"),
        (Goal("ratio", "at most", 1.1), 100, 111, False, "1.11×"),
        (Goal("ratio", "at least", 0.97), 100, 97, True, "0.97×"),
        (Goal("ratio", "at least", 0.97), 100, 96, False, "0.96×"),
        (Goal("difference", "at most", 0.5), 1, 1.5, True, "+0.50 ms"),
        (Goal("difference", "at most", 0.5), 1, 1.6, False, "+0.60 ms"),
        (None, 2, 9, True, "4.50×"),
    ],
)
def test_a_goal_is_met_up_to_its_limit(
    goal: Goal | None, floor: float, launcher: float, met: bool, against: str
) -> None:
    found = figure(floor, launcher, goal)
    assert (found.met, found.against) == (met, against)


def test_the_page_says_which_goal_is_missed(results: Results) -> None:
    missed = figure(1, 3, Goal("difference", "at most", 0.5))
    met = replace(results, figures=[replace(one, goal=None) for one in results.figures if one.name != "dispatch"])
    text = page(replace(met, figures=[*met.figures, missed]))
    assert "**0 of 1 goals are met.**" in text
    assert "- Missed: a figure: +2.00 ms; the goal is at most +0.5 ms." in text
    assert "| POST /bot | 1.00 | 3.00 | +2.00 ms | at most +0.5 ms | **no** |" in text


def test_the_page_says_who_carries_fewer_calls_than_the_floor(results: Results) -> None:
    loads = [
        Load("floor of calls", 8, 0.5, 1.0, 0, 0.05),
        Load("one process", 4, 0.5, 1.0, 0, 0.05),
        Load("one process", 8, 0.9, 1.0, 0, 0.2),
        Load("processes", 8, 0.9, 1.0, 0, 0.05),
    ]
    text = page(replace(results, loads=loads))
    assert "- one process carried 4 calls at once, the floor 8." in text
    assert "a process for each call carried" not in text


def test_a_quick_run_is_called_one(results: Results) -> None:
    assert "A quick run" in page(replace(results, quick=True))
    assert "A quick run" not in page(replace(results, quick=False))


@pytest.mark.parametrize(("most", "last"), [(0.3, 0.3), (1, 1), (7.49, 8), (2413, 2500), (35618, 40000)])
def test_an_axis_ends_at_a_round_number_that_is_enough(most: float, last: float) -> None:
    assert ticks(most)[-1] == pytest.approx(last)
