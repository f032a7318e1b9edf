"""Where locks and digests come from, and what a workflow may do with them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.launchers import ROOT

DIGEST = "sha256:" + "0123456789abcdef" * 4
NEWER = DIGEST.replace("0", "1")
REGISTRY = f"""#!/bin/sh
# As docker buildx imagetools inspect NAME.
[ "$*" = "buildx imagetools inspect $4" ] || exit 2
[ "$4" != "$UNKNOWN" ] || exit 1
echo "Name: docker.io/library/$4"
echo "Digest: ${{NOW:-{DIGEST}}}"
echo "Manifests:"
echo "  Digest: {DIGEST.replace("0", "f")}"
"""
NAMING = ["Dockerfile", "docker-compose.yml", "deploy/compose/compose.yaml"]
OURS = {"phone-agent", "pipecat-base-echo"}
"""Built where they are named."""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that these scripts read and write."""
    folder = tmp_path / "repository"
    files = [*NAMING, "scripts/containers.sh", "scripts/take-locks.sh"]
    files += [str(lock.relative_to(ROOT)) for lock in (ROOT / "requirements").glob("*.lock")]
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, folder / file)
    registry = tmp_path / "bin" / "docker"
    registry.parent.mkdir()
    registry.write_text(REGISTRY)
    registry.chmod(0o755)
    return folder


def script(folder: Path, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    path = f"{folder.parent / 'bin'}:{os.environ['PATH']}"
    command = ["sh", str(folder / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": path, **variables})


def pins(folder: Path) -> list[str]:
    return (folder / "requirements" / "containers.lock").read_text().split()


def images(folder: Path) -> Iterator[str]:
    """Every image from elsewhere that a file names."""
    for file in NAMING:
        text = (folder / file).read_text()
        stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE)) | {"${BASE_IMAGE}"}
        found = re.findall(r"^(?:ARG BASE_IMAGE=|FROM |COPY --from=|\s+image: )(\S+)", text, re.MULTILINE)
        yield from (name for name in found if name not in stages | OURS)


def test_every_image_is_named_as_its_lock_has_it() -> None:
    """With a digest, once the lock has one."""
    named = list(images(ROOT))
    assert len(named) == 2
    assert set(named) <= set(pins(ROOT))


def test_all_or_none_of_the_images_have_digests() -> None:
    assert len({"@" in pin for pin in pins(ROOT)}) == 1


def test_manifests_name_no_image_of_others() -> None:
    for file in (ROOT / "deploy" / "kubernetes").glob("*.yaml"):
        assert set(re.findall(r"image: (\S+)", file.read_text())) <= {"bot"}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_each_python_that_is_published_has_a_base(python: str) -> None:
    pinned = script(ROOT, "containers.sh", "pinned", f"python:{python}-slim-trixie")
    assert pinned.stdout.strip() in pins(ROOT)


def test_digests_are_written_wherever_an_image_is_named(copy: Path) -> None:
    for digest in (DIGEST, NEWER):
        assert script(copy, "containers.sh", "renew", NOW=digest).returncode == 0
        assert script(copy, "containers.sh", "write").returncode == 0
        assert all(pin.endswith(f"@{digest}") for pin in pins(copy))
        assert sorted(images(copy)) == [f"caddy:2@{digest}", f"python:3.12-slim-trixie@{digest}"]
        pinned = script(copy, "containers.sh", "pinned", "python:3.12-slim-trixie")
        assert pinned.stdout == f"python:3.12-slim-trixie@{digest}\n"


def test_without_an_answer_of_the_registry_the_lock_stays(copy: Path) -> None:
    renewed = script(copy, "containers.sh", "renew", UNKNOWN="caddy:2")
    assert renewed.returncode == 1
    assert "the registry has no digest of caddy:2" in renewed.stderr
    assert pins(copy) == pins(ROOT)
    assert script(copy, "containers.sh", "pinned", "caddy:3").returncode == 1


def test_no_package_is_built_to_be_resolved_but_the_one_without_a_wheel() -> None:
    planned = subprocess.run(["make", "-n", "lock"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    commands = re.split(r"(?=uv pip compile)", planned.replace("\\\n", ""))[1:]
    assert len(commands) == 4
    assert all(" --only-binary :all: --no-binary docopt " in command for command in commands)


@pytest.fixture
def resolved(copy: Path, tmp_path: Path) -> Path:
    """Locks as another job hands them over."""
    script(copy, "containers.sh", "renew")
    folder = tmp_path / "resolved"
    shutil.move(copy / "requirements", folder)
    (copy / "requirements").mkdir()
    for lock in folder.iterdir():
        (copy / "requirements" / lock.name).write_text("old\n")
    return folder


def test_locks_are_taken_as_they_are(copy: Path, resolved: Path) -> None:
    taken = script(copy, "take-locks.sh", str(resolved))
    assert taken.returncode == 0, taken.stdout + taken.stderr
    for lock in resolved.iterdir():
        assert (copy / "requirements" / lock.name).read_text() == lock.read_text()


@pytest.mark.parametrize(
    ("lock", "line"),
    [
        ("dev", "--index-url https://elsewhere.example/simple"),
        ("dev", "--extra-index-url=https://elsewhere.example/simple"),
        ("dev", "h11 @ https://elsewhere.example/h11.whl"),
        ("dev", "-e ."),
        ("dev", "h11>=0.16"),
        ("dev", "h11==0.16.0 ; python_version < '4' --index-url x"),
        ("dev", "    --hash=md5:0123"),
        ("dev", "# a comment"),
        ("containers", "caddy:2"),
        ("containers", f"caddy:2#;id@{DIGEST}"),
        ("containers", f"-x:2@{DIGEST}"),
    ],
)
def test_a_lock_with_more_than_pins_is_refused(copy: Path, resolved: Path, lock: str, line: str) -> None:
    with (resolved / f"{lock}.lock").open("a") as file:
        file.write(f"{line}\n")
    taken = script(copy, "take-locks.sh", str(resolved))
    assert taken.returncode == 1
    assert f"{lock}.lock is missing, or has more than pins" in taken.stderr
    assert (copy / "requirements" / f"{lock}.lock").read_text() == "old\n"


def test_a_lock_that_is_missing_or_a_link_is_refused(copy: Path, resolved: Path) -> None:
    lock = resolved / "full.lock"
    lock.rename(resolved / "elsewhere")
    assert script(copy, "take-locks.sh", str(resolved)).returncode == 1
    lock.symlink_to("elsewhere")
    assert script(copy, "take-locks.sh", str(resolved)).returncode == 1


def jobs() -> Iterator[tuple[str, dict[str, Any]]]:
    for file in sorted((ROOT / ".github" / "workflows").iterdir()):
        workflow = yaml.safe_load(file.read_text())
        for name, job in workflow["jobs"].items():
            yield f"{file.stem}/{name}", {"permissions": workflow["permissions"], **job}


def test_one_job_alone_may_write_to_the_repository_and_runs_nothing_that_was_resolved() -> None:
    writing = {name: job for name, job in jobs() if {"contents", "pull-requests"} & writes(job)}
    assert set(writing) == {"lock/propose"}
    run = "\n".join(step.get("run", "") for step in writing["lock/propose"]["steps"])
    programs = r"\b(make|pip|pipx|uv|uvx|python3?|npm|npx|docker)\b"
    assert re.findall(programs, run) == []
    scripts = "\n".join((ROOT / name).read_text() for name in re.findall(r"scripts/\S+\.sh", run))
    assert re.findall(r"\bmake |\bpip |\buv |\bpython", scripts) == []


def test_the_job_that_resolves_may_write_nothing() -> None:
    resolving = dict(jobs())["lock/resolve"]
    assert resolving["permissions"] == {"contents": "read"}
    assert all(step["with"]["persist-credentials"] is False for step in checkouts(resolving))


def test_no_job_keeps_credentials_in_its_checkout() -> None:
    for name, job in jobs():
        for step in checkouts(job):
            assert step["with"]["persist-credentials"] is False, name


def test_every_action_is_named_by_its_commit() -> None:
    used = [step["uses"] for _, job in jobs() for step in job.get("steps", []) if "uses" in step]
    assert len(used) > 10
    assert [action for action in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action)] == []


def writes(job: dict[str, Any]) -> set[str]:
    return {scope for scope, right in job["permissions"].items() if right == "write"}


def checkouts(job: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for step in job.get("steps", []) if step.get("uses", "").startswith("actions/checkout@")]
