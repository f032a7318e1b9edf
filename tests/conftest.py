from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from tests.support.daily_api import DailyApi
from tests.support.launchers import Launcher

NOTHING_IS_LACKING = bool(os.environ.get("NOTHING_IS_LACKING"))
"""Whether .ci/run has seen to all that tests need: one that is skipped for want of it has failed."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    report = yield
    if NOTHING_IS_LACKING and report.skipped and "this machine lacks" in str(report.longrepr):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def obedient() -> Iterator[Launcher]:
    """One launcher for every test that leaves it as it was."""
    with Launcher("obedient") as launcher:
        yield launcher


@pytest.fixture(scope="session")
def daily() -> Iterator[DailyApi]:
    with DailyApi() as api:
        yield api


@pytest.fixture(scope="session")
def echo() -> Iterator[Launcher]:
    """The example bot: real pipelines on every transport."""
    from tests.support.launchers import ROOT

    with Launcher(ROOT / "examples" / "echo", DRAIN_NOTICE="0") as launcher:
        yield launcher
