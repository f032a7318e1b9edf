"""The names that an image is published under."""

from __future__ import annotations

import subprocess

import pytest

from tests.process import ROOT


@pytest.mark.parametrize(
    ("python", "target", "tags"),
    [
        ("3.12", "slim", ["1.2-py3.12", "1.2", "latest-py3.12", "latest"]),
        ("3.10", "slim", ["1.2-py3.10", "latest-py3.10"]),
        ("3.14", "slim-nonroot", ["1.2-nonroot-py3.14", "latest-nonroot-py3.14"]),
        ("3.12", "full", ["1.2-full-py3.12", "1.2-full", "latest-full-py3.12", "latest-full"]),
        ("3.11", "full-nonroot", ["1.2-full-nonroot-py3.11", "latest-full-nonroot-py3.11"]),
    ],
)
def test_the_tags_of_an_image(python: str, target: str, tags: list[str]) -> None:
    command = ["sh", str(ROOT / "scripts" / "tags.sh"), "r.io/o/i", "1.2", python, "3.12", target]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [f"r.io/o/i:{tag}" for tag in tags]
