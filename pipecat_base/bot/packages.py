"""The launcher's packages beside the bot's: where both have one, the bot's is used, so it must fit.

In the image the launcher has a folder of packages of its own, last on the path. The bot's environment was resolved
without it, and may bring a starlette that the launcher's fastapi cannot work with. When the image is built, a list is
written of what each of the launcher's packages needs; the versions that the environment has are read from the names of
its ``.dist-info`` folders. That takes a millisecond, ``importlib.metadata`` and ``packaging`` many times that.

Where pip has installed the launcher into the bot's environment there is no such list: pip has made them fit.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat_base.errors import PackagesConflict, StartupError

if TYPE_CHECKING:
    from pipecat_base.config.settings import Settings

LIST = "packages.json"
LAUNCHER = "pipecat-base"
SESSION_API = "fastapi"
"""Needed only by a bot that imports ``pipecatcloud_system``, and by a gateway."""
BOTS_MODULE = "pipecatcloud_system"
UPLOADS = "python-multipart"
DEVELOPMENT = ("python-dotenv", "segno", "watchfiles")
"""Needed only by ``pipecat-base dev``; the first by ``check`` and ``doctor`` too, which read ``.env``."""

Release = tuple[int, ...]


@dataclass(frozen=True)
class Package:
    """One of the launcher's packages.

    Attributes:
        needs: By name, the bounds of what it needs, such as ``[(">=", (0, 40)), ("<", (2,))]``.
    """

    name: str
    version: str
    needs: Mapping[str, Sequence[tuple[str, Release]]]


class Packages:
    """The launcher's packages and the environment's versions of them.

    Args:
        site: The folder of the launcher's packages; None where the environment holds them too.
        path: Where packages are looked for, in this order.
    """

    def __init__(self, site: str | None, path: Sequence[str]) -> None:
        self._site = site
        self._packages: dict[str, Package] = {}
        if site is not None:
            with open(os.path.join(site, LIST), encoding="utf-8") as file:
                listed = json.load(file)
            self._python = listed["python"]
            self._packages = {name: _package(name, entry) for name, entry in listed["packages"].items()}
        self._theirs = _versions([entry for entry in path if entry != site])

    @property
    def versions(self) -> dict[str, str]:
        """By package, the version that is imported."""
        return {name: package.version for name, package in self._packages.items()} | self._theirs

    def check(self, *, unused: Collection[str] = ()) -> None:
        """Everything that the launcher will use: all but what is ``unused`` here.

        Raises:
            PackagesConflict: two packages cannot work together.
        """
        pending = [LAUNCHER]
        for name in pending:
            package = self._packages.get(name)
            if package is None or (name in self._theirs and name != LAUNCHER):
                continue  # what the environment has itself was made to fit there
            for needed in package.needs:
                if needed in unused:
                    continue
                self._check(package, needed)
                if needed not in pending:
                    pending.append(needed)

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Around imports: one that fails in the launcher's packages says which two are incompatible.

        Raises:
            PackagesConflict: instead of the error, when that is the reason.
        """
        try:
            yield
        except Exception as error:
            if not self._passes_through(error.__cause__ if isinstance(error, StartupError) else error):
                raise
            self.check()
            running = "{}.{}".format(*sys.version_info)
            if running == self._python or not isinstance(error.__cause__ or error, ImportError):
                raise
            raise PackagesConflict(
                f"The launcher was installed for Python {self._python}, but your environment has Python {running},"
                f" where its packages do not import ({error.__cause__ or error}).",
                f"Add {SESSION_API} and uvicorn to your dependencies, or build from the image for Python {running}.",
            ) from error

    def _passes_through(self, error: BaseException | None) -> bool:
        """Whether the error arose in an import by one of the launcher's packages, and not in the bot's own lines."""
        if error is None or self._site is None:
            return False
        ours = os.path.join(self._site, "pipecat_base", "")
        imported = itertools.takewhile(
            lambda file: not file.startswith(ours),
            (frame.filename for frame in reversed(traceback.extract_tb(error.__traceback__))),
        )
        return any(file.startswith(os.path.join(self._site, "")) for file in imported)

    def _check(self, package: Package, needed: str) -> None:
        version = self._theirs.get(needed)
        bounds = package.needs[needed]
        if version is None or all(_is_within(release_of(version), bound) for bound in bounds):
            return
        wanted = ",".join(f"{operator}{text_of(release)}" for operator, release in bounds)
        if package.name == LAUNCHER:
            raise PackagesConflict(
                f"{LAUNCHER} {package.version} needs {needed}{wanted}, but your environment has {needed} {version}.",
                f"Ask for {needed}{wanted} in your requirements.txt or pyproject.toml and install again.",
            )
        raise PackagesConflict(
            f"The launcher's {package.name} {package.version} needs {needed}{wanted}, but your environment has"
            f" {needed} {version}.",
            f"Add {package.name} to your requirements.txt or pyproject.toml, so that compatible versions are chosen,"
            f" or ask for {needed}{wanted}.",
        )


def _package(name: str, entry: Mapping[str, Any]) -> Package:
    needs = {
        needed: [(operator, tuple(release)) for operator, release in bounds]
        for needed, bounds in entry["needs"].items()
    }
    return Package(name, entry["version"], needs)


def _versions(path: Sequence[str]) -> dict[str, str]:
    """The version of each package on the path, as its ``.dist-info`` folder says."""
    found: dict[str, str] = {}
    for folder in path:
        try:
            entries = os.listdir(folder or ".")
        except OSError:
            continue
        for entry in entries:
            stem, extension = os.path.splitext(entry)
            if extension == ".dist-info":
                distribution, _, version = stem.rpartition("-")
                found.setdefault(re.sub(r"[-_.]+", "-", distribution).lower(), version)
    return found


def release_of(version: str) -> Release:
    """``1.2.3rc1+local`` as (1, 2, 3): a release candidate counts as its release."""
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def text_of(release: Release) -> str:
    """``(1, 2, 3)`` as 1.2.3."""
    return ".".join(map(str, release))


def _is_within(version: Release, bound: tuple[str, Release]) -> bool:
    operator, limit = bound
    size = max(len(version), len(limit))
    ours, theirs = (part + (0,) * (size - len(part)) for part in (version, limit))
    if operator == "~=":
        return ours >= theirs and ours[: len(limit) - 1] == limit[:-1]
    return {
        ">=": ours >= theirs,
        ">": ours > theirs,
        "<=": ours <= theirs,
        "<": ours < theirs,
        "==": ours == theirs,
        "!=": ours != theirs,
    }[operator]


def unused(
    settings: Settings, *, has_app: bool = False, has_file_storage: bool = False, is_dev: bool = False
) -> set[str]:
    """The packages that are not needed for this start.

    Args:
        has_app: Whether the bot has asked for an app; one that is not imported yet is taken to need nothing.
        has_file_storage: Whether it has ``create_file_storage()``.
    """
    found = set() if is_dev else set(DEVELOPMENT)
    if not (settings.gateway.is_enabled or has_app):
        found.add(SESSION_API)
    if settings.files.uploads_folder is None and not has_file_storage:
        found.add(UPLOADS)
    return found
