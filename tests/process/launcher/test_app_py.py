"""The image's /app/app.py: starts the launcher, and hides no module of a project."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launchers import ROOT, run

SCRIPT = ROOT / "image" / "app.py"
LAUNCH = "/opt/pipecat-base/launch.py"


def python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of a project, with the image's file."""
    shutil.copy(SCRIPT, tmp_path)
    return tmp_path


@pytest.mark.parametrize("arguments", [["app.py"], ["-m", "app"]])
def test_it_becomes_the_launcher_with_its_options(folder: Path, arguments: list[str]) -> None:
    launch = folder / "launch.py"
    launch.write_text("import json, os, sys\nprint(json.dumps([os.getpid(), *sys.argv]))\n")
    assert LAUNCH in SCRIPT.read_text()
    (folder / "app.py").write_text(SCRIPT.read_text().replace(LAUNCH, str(launch)))
    with subprocess.Popen(
        [sys.executable, *arguments, "--port", "9000"], cwd=folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert json.loads(process.communicate(timeout=30)[0]) == [process.pid, str(launch), "--port", "9000"]


@pytest.mark.parametrize("where", ["elsewhere/app.py", "elsewhere/app/__init__.py", "app/__init__.py"])
def test_import_app_gives_a_projects_own(folder: Path, where: str) -> None:
    (folder / where).parent.mkdir(parents=True)
    (folder / where).write_text("NAME = 'mine'\n")
    code = "import sys; sys.path.append('elsewhere'); import app; from app import NAME; print(app.NAME, app.__file__)"
    assert python(folder, "-c", code).stdout.split() == ["mine", str(folder / where)]


@pytest.mark.parametrize("where", ["app", "elsewhere/app"])
def test_import_app_gives_a_package_without_init(folder: Path, where: str) -> None:
    (folder / where / "inner").mkdir(parents=True)
    (folder / where / "tools.py").write_text("NAME = 'mine'\n")
    (folder / where / "inner" / "deep.py").write_text("from app.tools import NAME\n")
    code = "import sys; sys.path.append('elsewhere'); import app.inner.deep; from app.tools import NAME; print(NAME)"
    result = python(folder, "-c", code)
    assert (result.stdout, result.stderr) == ("mine\n", "")


def test_import_app_without_one_fails_as_ever(folder: Path) -> None:
    code = "try:\n    import app\nexcept ModuleNotFoundError as error:\n    print(error.name, '-', error)"
    assert python(folder, "-c", code).stdout == "app - No module named 'app'\n"


def test_a_bot_imports_its_own_app(folder: Path) -> None:
    (folder / "app").mkdir()
    (folder / "app" / "tools.py").write_text("NAME = 'mine'\n")
    (folder / "bot.py").write_text("from app.tools import NAME\nprint(NAME)\nasync def bot(args): ...\n")
    result = run("check", cwd=folder)
    assert result.returncode == 0
    assert "mine" in result.stderr


def test_it_is_not_named_where_a_bot_is_missing(folder: Path) -> None:
    assert f"There is no bot.py in {folder}. Put a file" in run("check", cwd=folder).stderr
    assert f"There is no app.py in {folder}. Put a file" in run("check", "--bot", "app.py", cwd=folder).stderr
    (folder / "agent.py").write_text("")
    assert "It has agent.py." in run("check", cwd=folder).stderr
