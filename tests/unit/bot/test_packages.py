"""The launcher's packages are checked against those of the bot's environment. In a real image: tests/system/image."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from pipecat_base.bot.packages import SESSION_API, Packages
from pipecat_base.errors import BotImportFailed, PackagesConflict

NEEDS = {
    "pipecat-base": {"starlette": [(">=", [0, 41])], "fastapi": [(">=", [0, 115])]},
    "fastapi": {"pydantic": [(">=", [2, 9])], "starlette": [(">=", [0, 46]), ("<", [2])]},
    "pydantic": {"pydantic-core": [("==", [2, 50, 4])]},
    "pydantic-core": {},
    "starlette": {"anyio": [(">=", [4]), ("<", [5])]},
    "anyio": {},
}


def packages(folder: Path, *theirs: str, python: str = "3.12", needs: object = NEEDS) -> Packages:
    site, environment = folder / "site", folder / "environment"
    site.mkdir()
    listed = {name: {"version": "1.0", "needs": needed} for name, needed in needs.items()}  # type: ignore[attr-defined]
    (site / "packages.json").write_text(json.dumps({"python": python, "packages": listed}))
    for name in theirs:
        (environment / f"{name}.dist-info").mkdir(parents=True)
    return Packages(str(site), [str(folder / "missing"), str(environment), str(site)])


@pytest.mark.parametrize(
    ("theirs", "reason"),
    [
        ([], None),
        (["anyio-4.9.0", "redis-1.0"], None),
        (["starlette-0.41.3", "fastapi-0.115.6", "pydantic-1.10"], None),  # a fastapi of theirs has fitted its own
        (["anyio-5.0"], "The launcher's starlette 1.0 needs anyio>=4,<5, but your environment has anyio 5.0."),
        (["starlette-0.40.0"], "pipecat-base 1.0 needs starlette>=0.41, but your environment has starlette 0.40.0."),
        (["pydantic_core-2.49.0"], "The launcher's pydantic 1.0 needs pydantic-core==2.50.4, but your environment"),
        (["starlette-0.41.3"], "The launcher's fastapi 1.0 needs starlette>=0.46,<2, but your environment has"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, theirs: list[str], reason: str | None) -> None:
    found = packages(tmp_path, *theirs)
    if reason is None:
        found.check()
        return
    with pytest.raises(PackagesConflict) as conflict:
        found.check()
    assert str(conflict.value).startswith(reason)


def test_fastapi_need_not_fit_where_it_is_not_used(tmp_path: Path) -> None:
    packages(tmp_path, "starlette-0.41.3", "pydantic-1.10").check(unused=[SESSION_API])


def test_where_pip_has_made_them_fit_nothing_is_looked_at() -> None:
    Packages(None, ["/nowhere"]).check()


versions = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(lambda parts: ".".join(map(str, parts)))
operators = st.sampled_from([">=", ">", "<=", "<", "==", "!=", "~="])


@settings(deadline=None)  # each example makes folders, on a disk that others use too
@given(version=versions, operator=operators, limit=versions)
def test_versions_are_compared_as_pip_compares_them(
    tmp_path_factory: pytest.TempPathFactory, version: str, operator: str, limit: str
) -> None:
    if operator == "~=" and "." not in limit:
        limit += ".0"
    needs = {"pipecat-base": {"starlette": [(operator, [int(part) for part in limit.split(".")])]}, "starlette": {}}
    found = packages(tmp_path_factory.mktemp("case"), f"starlette-{version}", needs=needs)
    try:
        found.check()
        fits = True
    except PackagesConflict:
        fits = False
    assert fits == SpecifierSet(f"{operator}{limit}").contains(version)


def failing(folder: Path, where: str, line: str = "import pydantic_core_of_another_python") -> Exception:
    """An error that arises in a file of that folder, imported as a bot is: by a loader of the launcher's."""
    innermost = compile(line, str(folder / where / "broken.py"), "exec")
    loader = compile("exec(innermost, {})", str(folder / "site" / "pipecat_base" / "loader.py"), "exec")
    try:
        exec(loader, {"innermost": innermost})
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


def test_an_import_that_fails_with_another_python_says_so(tmp_path: Path) -> None:
    found = packages(tmp_path, python="2.7")
    cause = failing(tmp_path, "site")
    said = r"installed for Python 2\.7, but .* has Python 3\.\d+, where .*_core"
    with pytest.raises(PackagesConflict, match=said), found.explaining():
        raise BotImportFailed("An import failed.", "Fix it.") from cause


HERE = "{}.{}".format(*sys.version_info)


@pytest.mark.parametrize(
    ("where", "line", "python", "theirs"),
    [
        ("project", "import redis", "2.7", ["starlette-0.41.3"]),
        ("project", "undefined", "2.7", ["starlette-0.41.3"]),
        ("site", "undefined", "2.7", []),
        ("site", "import redis", HERE, []),
    ],
)
def test_an_import_that_fails_for_another_reason_stays_as_it_is(
    tmp_path: Path, where: str, line: str, python: str, theirs: list[str]
) -> None:
    found = packages(tmp_path, *theirs, python=python)
    cause = failing(tmp_path, where, line)
    with pytest.raises(BotImportFailed), found.explaining():
        raise BotImportFailed("An import failed.", "Fix it.") from cause


def test_an_import_that_fails_for_a_package_that_does_not_fit_names_it(tmp_path: Path) -> None:
    found = packages(tmp_path, "starlette-0.41.3")
    cause = failing(tmp_path, "site")
    with pytest.raises(PackagesConflict, match=r"fastapi 1\.0 needs starlette"), found.explaining():
        raise cause


@pytest.mark.parametrize(("first", "second", "fits"), [("5.0", "4.9.0", False), ("4.9.0", "5.0", True)])
def test_of_a_package_in_two_folders_the_first_on_the_path_counts(
    tmp_path: Path, first: str, second: str, fits: bool
) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder, version in zip(folders, (first, second), strict=True):
        (folder / f"anyio-{version}.dist-info").mkdir(parents=True)
    packages(tmp_path)  # writes the list
    found = Packages(str(tmp_path / "site"), list(map(str, folders)))
    if fits:
        found.check()
    else:
        with pytest.raises(PackagesConflict, match=r"your environment has anyio 5\.0"):
            found.check()
