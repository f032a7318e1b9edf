"""The names that an image is published under."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.launchers import ROOT


def run(script: str, *arguments: str, given: str = "") -> list[str]:
    command = ["sh", str(ROOT / "scripts" / script), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize(
    ("python", "target", "tags"),
    [
        ("3.12", "slim", ["1.2-py3.12", "1.2", "latest-py3.12", "latest"]),
        ("3.11", "slim", ["1.2-py3.11", "latest-py3.11"]),
        ("3.14", "slim-nonroot", ["1.2-nonroot-py3.14", "latest-nonroot-py3.14"]),
        ("3.12", "full", ["1.2-full-py3.12", "1.2-full", "latest-full-py3.12", "latest-full"]),
        ("3.11", "full-nonroot", ["1.2-full-nonroot-py3.11", "latest-full-nonroot-py3.11"]),
    ],
)
def test_the_tags_of_an_image(python: str, target: str, tags: list[str]) -> None:
    found = run("tags.sh", "r.io/Owner/Image", "1.2", "1.2", python, "3.12", target)
    assert found == [f"r.io/owner/image:{tag}" for tag in tags]


def test_an_older_version_does_not_become_the_latest() -> None:
    assert run("tags.sh", "i", "0.9.5", "1.0.0", "3.12", "3.12", "slim") == ["i:0.9.5-py3.12", "i:0.9.5"]


def test_the_newest_version_is_no_candidate() -> None:
    tags = "v0.9.0 v1.2.0 v1.10.0 v1.10.1rc1 v2.0.0-rc1 nightly v1.9.9"
    assert run("newest.sh", given="\n".join(tags.split())) == ["v1.10.0"]
