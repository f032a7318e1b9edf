"""``pipecat-base init``: a project to begin with. Served and called: tests/process/e2e/test_init.py."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipecat_base.cli import init
from tests.support.launchers import PIPECAT, ROOT, run

NAMES = {"bot.py", "requirements.txt", "Dockerfile", ".dockerignore", ".env.example"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.skipif(PIPECAT < (1, 14), reason="its requirements.txt asks for pipecat-ai 1.14")
def test_the_project_passes_check_without_a_warning(tmp_path: Path) -> None:
    made = run("init", "new/my bot", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert names(tmp_path / "new" / "my bot") == NAMES
    checked = run("check", cwd=tmp_path / "new" / "my bot")
    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.startswith("bot in bot.py is fine\n")
    assert "Warning" not in checked.stdout


def test_the_next_steps_begin_in_the_folder(tmp_path: Path) -> None:
    elsewhere = run("init", "my bot", cwd=tmp_path).stdout
    assert "\n  cd 'my bot'\n  pip install -r requirements.txt\n  pipecat-base dev --reload" in elsewhere
    here = run("init", cwd=tmp_path)
    assert here.returncode == 0
    assert "  cd " not in here.stdout
    assert "Next:\n  pip install" in here.stdout
    assert "docker build -t my-bot ." in here.stdout


@pytest.mark.parametrize("name", sorted(NAMES))
def test_no_file_is_overwritten_and_nothing_is_written_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    refused = run("init", cwd=tmp_path)
    assert refused.returncode == 1
    assert refused.stderr == (
        f"pipecat-base init: {name} is already in {tmp_path}. Nothing was written: name another folder, or move what"
        " is there.\n"
    )
    assert names(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_link_that_leads_nowhere_is_a_file_too(tmp_path: Path) -> None:
    (tmp_path / "bot.py").symlink_to(tmp_path / "nowhere")
    assert run("init", cwd=tmp_path).returncode == 1
    assert names(tmp_path) == {"bot.py"}


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("init", "file/my-bot", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "pipecat-base init: file/my-bot: Not a directory. Nothing was written" in refused.stderr


def test_a_write_that_fails_halfway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []

    class FullDisk(type(Path())):  # type: ignore[misc]
        def open(self, *arguments: object, **options: object) -> object:
            if self.name == "Dockerfile":
                raise OSError(28, "No space left on device", str(self))
            written.append(self.name)
            return super().open(*arguments, **options)

    with pytest.raises(init.NotWritten, match="No space left on device"):
        init.write(FullDisk(tmp_path / "a" / "b"))
    assert written == ["bot.py", "requirements.txt"]
    assert names(tmp_path) == set()


def test_what_is_installed_here_meets_the_requirements() -> None:
    text = (ROOT / "pipecat_base" / "cli" / "init" / "project" / "requirements.txt").read_text()
    (line,) = (line for line in text.splitlines() if not line.startswith("#"))
    requirement = Requirement(line)
    assert requirement.extras == {"webrtc", "websocket"}
    if PIPECAT >= (1, 14):
        assert requirement.specifier.contains(importlib.metadata.version("pipecat-ai"))


def test_the_dockerfile_is_that_of_the_documentation() -> None:
    ours = (ROOT / "pipecat_base" / "cli" / "init" / "project" / "Dockerfile").read_text()
    assert ours == (ROOT / "examples" / "assistant" / "Dockerfile").read_text()
    assert f"```dockerfile\n{ours}```" in (ROOT / "docs" / "guide" / "image.md").read_text()


def test_the_environment_file_is_the_form_that_docker_and_dev_read() -> None:
    from dotenv import dotenv_values

    example = ROOT / "pipecat_base" / "cli" / "init" / "project" / ".env.example"
    assert dotenv_values(example) == {}
    filled = re.sub(r"^#(?=[A-Z])", "", example.read_text(), flags=re.MULTILINE)
    for line in filled.splitlines():
        assert re.match(r"(#|$|[A-Z_]+=)", line), line


def test_the_wheel_has_every_file(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if name.startswith("pipecat_base/cli/init/project/")}
    assert {name.rpartition("/")[2] for name in found} == NAMES
