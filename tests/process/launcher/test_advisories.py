"""Versions that lack a security fix are served, and named at the start."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipecat_base.bot import advisories
from pipecat_base.bot.advisories import FIXES
from pipecat_base.bot.packages import Packages, text_of
from tests.support.launchers import ROOT, Launcher, run

OLD = ("h11-0.14.0", "starlette-0.41.3", "python_multipart-0.0.20")
FOR_UPLOADS = "from pipecatcloud_system import app\n\n\nasync def bot(args): ...\n"


def installed(folder: Path, *distributions: str) -> str:
    """A folder that says it has these, to come first on the path; the modules are those of the environment."""
    for name in distributions:
        (folder / "environment" / f"{name}.dist-info").mkdir(parents=True)
    return str(folder / "environment")


def bot(folder: Path, source: str) -> Path:
    project = folder / "project"
    project.mkdir()
    (project / "bot.py").write_text(source)
    return project


def warned(log: str) -> list[str]:
    return [line for line in log.splitlines() if "lacks the security fixes of" in line]


@pytest.mark.parametrize("name", FIXES)
def test_each_release_is_judged_by_the_fixes_that_it_lacks(name: str) -> None:
    for advisory, fixed in FIXES[name].released_in.items():
        before = text_of((*fixed[:-1], fixed[-1] - 1)) if fixed[-1] else "0"
        (line,) = advisories.warnings({name: before})
        assert line.startswith(f"{name} {before} lacks the security fixes of ")
        assert advisory in line
        assert not any(advisory in line for line in advisories.warnings({name: text_of(fixed)}))
    newest = text_of(max(FIXES[name].released_in.values()))
    assert line.endswith(f": install {name}>={newest}")
    assert advisories.warnings({name: newest}) == []
    assert advisories.warnings({name: "0"}, unused=[name]) == []


def bounds() -> dict[str, str]:
    """Of pyproject.toml."""
    listed = map(Requirement, tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    return {one.name: str(one.specifier) for one in listed}


def test_a_new_install_requires_the_fixes() -> None:
    for name in ("h11", "python-multipart"):
        assert bounds()[name] == f">={text_of(max(FIXES[name].released_in.values()))}"
    # pipecatcloud 0.1, which is supported, holds starlette below every fix.
    assert bounds()["starlette"] == f">={text_of(FIXES['starlette'].works_from)}"


@pytest.mark.parametrize("lock", ["launcher", "full", "dev"])
def test_a_lock_has_every_fix(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.lock").read_text().splitlines()
    pins = [Requirement(line.rstrip("\\ ")) for line in lines if line[:1].isalnum()]
    versions = {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}
    assert versions.keys() >= {"h11", "starlette"}
    assert advisories.warnings(versions) == []


def test_the_image_lets_a_bots_older_pins_start(tmp_path: Path) -> None:
    site = tmp_path / "site"
    needs = "".join(f"Requires-Dist: {name}{bound}\n" for name, bound in bounds().items())
    for name, metadata in {"pipecat_base": needs, "starlette": "", "h11": "", "python_multipart": ""}.items():
        (site / f"{name}-9.0.dist-info").mkdir(parents=True)
        (site / f"{name}-9.0.dist-info" / "METADATA").write_text(f"Name: {name}\nVersion: 9.0\n{metadata}")
    subprocess.run([sys.executable, str(ROOT / "image" / "list-packages.py"), str(site)], check=True)
    listed = json.loads((site / "packages.json").read_text())["packages"]["pipecat-base"]["needs"]
    assert listed["h11"] == [[">=", [0, 14]]]
    assert listed["uvicorn"] == [[">=", [0, 30]]]
    packages = Packages(str(site), [installed(tmp_path, *OLD), str(site)])
    packages.check()
    assert len(advisories.warnings(packages.versions)) == len(OLD)
    assert advisories.warnings(Packages(str(site), [str(site)]).versions) == []


def test_a_bot_with_older_packages_is_served_with_one_warning_for_each(tmp_path: Path) -> None:
    path = installed(tmp_path, *OLD)
    with Launcher(bot(tmp_path, FOR_UPLOADS), PYTHONPATH=path) as launcher:
        assert launcher.post({}).status_code == 200
        lines = warned(launcher.log())
    assert len(lines) == 3
    assert all("WARNING" in line for line in lines)
    assert any("h11 0.14.0 lacks the security fixes of CVE-2025-43859: install h11>=0.16" in line for line in lines)
    for package, advisory in (("starlette 0.41.3", "CVE-2026-54283"), ("python-multipart 0.0.20", "CVE-2026-42561")):
        assert any(package in line and advisory in line for line in lines)


def test_packages_that_no_request_reaches_or_that_have_the_fixes_are_not_named(tmp_path: Path) -> None:
    """Forms are parsed for uploads, and by routes of the bot's own."""
    path = installed(tmp_path, "h11-0.16.0", "python_multipart-0.0.20", "starlette-1.3.1")
    with Launcher(bot(tmp_path, "async def bot(args): ...\n"), PYTHONPATH=path) as launcher:
        assert warned(launcher.log()) == []
    with Launcher(tmp_path / "project", PYTHONPATH=path, PIPECAT_UPLOADS_FOLDER=str(tmp_path)) as launcher:
        assert len(warned(launcher.log())) == 1


def test_check_names_them_too(tmp_path: Path) -> None:
    path = installed(tmp_path, *OLD)
    checked = run("check", "--json", cwd=bot(tmp_path, FOR_UPLOADS), PYTHONPATH=path)
    assert checked.returncode == 0, checked.stderr
    assert len(warned("\n".join(json.loads(checked.stdout)["warnings"]))) == 3
