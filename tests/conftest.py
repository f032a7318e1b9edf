from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.daily_api import DailyApi
from tests.process import Launcher


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
    from tests.process import ROOT

    with Launcher(ROOT / "examples" / "echo", DRAIN_NOTICE="0") as launcher:
        yield launcher
