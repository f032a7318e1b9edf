from __future__ import annotations

import pytest

from tests.system.kubernetes.manifests import ENVIRONMENT


@pytest.fixture(scope="session", autouse=True)
def _installed() -> None:
    assert (ENVIRONMENT / "bin" / "kubectl").exists(), "kubectl is not installed: make kubernetes"
