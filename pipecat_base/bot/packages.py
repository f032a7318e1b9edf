"""Check that the launcher's packages work with those of the bot's environment.

In the image the launcher has its own folder of packages and a list of what each needs. The folder is the last on the
path: where both have a package, the bot's is used. Versions are read from the names of ``.dist-info`` folders, in a
millisecond; importing ``packaging`` would take eight more.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import operator
import os
import re
import sys
import traceback
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipecat_base.bot.installed import normalized
from pipecat_base.errors import PackagesConflict, StartupError

if TYPE_CHECKING:
    from pipecat_base.config.settings import FileSettings, GatewaySettings

LIST = "packages.json"
LAUNCHER = "pipecat-base"
BOTS_MODULE = "pipecatcloud_system"
# Only a gateway and a bot that imports BOTS_MODULE need it.
SESSION_API = "fastapi"
UPLOADS = "python-multipart"
# Only "pipecat-base dev" needs these; "check" and "doctor" read .env with the first, too.
DEVELOPMENT = ("python-dotenv", "segno", "watchfiles")
COMPARISONS = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "==": operator.eq,
    "!=": operator.ne,
}

Release = tuple[int, ...]


class Packages:
    """The launcher's packages, in ``site`` unless pip installed them with the bot's, and the environment's versions."""

    def __init__(self, site: str | None, path: Sequence[str]) -> None:
        self._site = site
        self._launchers: dict[str, dict[str, Any]] = {}
        if site is not None:
            with open(os.path.join(site, LIST), encoding="utf-8") as file:
                listed = json.load(file)
            self._python = listed["python"]
            self._launchers = listed["packages"]
        self._environments = _versions([entry for entry in path if entry != site])

    @property
    def versions(self) -> dict[str, str]:
        return {name: package["version"] for name, package in self._launchers.items()} | self._environments

    def check(self, *, unused: Collection[str] = ()) -> None:
        """Raise PackagesConflict if two packages cannot work together; ``unused`` ones are not checked."""
        pending = [LAUNCHER]
        for name in pending:
            # The environment's own packages were chosen to fit each other.
            if name in self._launchers and (name == LAUNCHER or name not in self._environments):
                needs = [needed for needed in self._launchers[name]["needs"] if needed not in unused]
                for needed in needs:
                    self._check(name, needed)
                pending += [needed for needed in needs if needed not in pending]

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Name the incompatible packages, as PackagesConflict, when an import inside the launcher's packages fails."""
        try:
            yield
        except Exception as error:
            cause = error.__cause__ or error
            if not self._passes_through(error.__cause__ if isinstance(error, StartupError) else error):
                raise
            self.check()
            running = "{}.{}".format(*sys.version_info)
            if running == self._python or not isinstance(cause, ImportError):
                raise
            raise PackagesConflict(
                f"The launcher was installed for Python {self._python}, but your environment has Python {running},"
                f" where its packages do not import ({cause}).",
                f"Add {SESSION_API} and uvicorn to your dependencies, or build from the image for Python {running}.",
            ) from error

    def _passes_through(self, error: BaseException | None) -> bool:
        """True if a package of the launcher raised the error during an import, not the bot's own lines."""
        if error is None or self._site is None:
            return False
        own_code = os.path.join(self._site, "pipecat_base", "")
        imported = itertools.takewhile(
            lambda file: not file.startswith(own_code),
            (frame.filename for frame in reversed(traceback.extract_tb(error.__traceback__))),
        )
        return any(file.startswith(os.path.join(self._site, "")) for file in imported)

    def _check(self, name: str, needed: str) -> None:
        version = self._environments.get(needed)
        package = self._launchers[name]
        bounds = package["needs"][needed]
        if version is None or all(_fits(release_of(version), comparison, limit) for comparison, limit in bounds):
            return
        wanted = needed + ",".join(f"{comparison}{text_of(limit)}" for comparison, limit in bounds)
        what = f"{name} {package['version']} needs {wanted}, but your environment has {needed} {version}."
        if name == LAUNCHER:
            raise PackagesConflict(
                what, f"Ask for {wanted} in your requirements.txt or pyproject.toml and install again."
            )
        raise PackagesConflict(
            f"The launcher's {what}",
            f"Add {name} to your requirements.txt or pyproject.toml, so that compatible versions are chosen,"
            f" or ask for {wanted}.",
        )


def _versions(path: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder in path:
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder or "."):
                stem, extension = os.path.splitext(entry)
                if extension == ".dist-info":
                    distribution, _, version = stem.rpartition("-")
                    found.setdefault(normalized(distribution), version)
    return found


def release_of(version: str) -> Release:
    """``1.2.3rc1+local`` as (1, 2, 3): a release candidate counts as its release."""
    match = re.match(r"(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return tuple(map(int, match[1].split("."))) if match else ()


def text_of(release: Sequence[int]) -> str:
    return ".".join(map(str, release))


def _fits(version: Release, comparison: str, limit: Sequence[int]) -> bool:
    size = max(len(version), len(limit))
    padded, bound = ((*part, *[0] * (size - len(part))) for part in (version, limit))
    if comparison == "~=":
        return padded >= bound and padded[: len(limit) - 1] == tuple(limit[:-1])
    return bool(COMPARISONS[comparison](padded, bound))


def unused(
    gateway: GatewaySettings,
    files: FileSettings,
    *,
    has_app: bool = False,
    has_file_storage: bool = False,
    is_dev: bool = False,
) -> set[str]:
    """Packages that this start does not need; before the bot's import it is taken to need none."""
    found = set() if is_dev else set(DEVELOPMENT)
    if not (gateway.is_enabled or has_app):
        found.add(SESSION_API)
    if files.uploads_folder is None and not has_file_storage:
        found.add(UPLOADS)
    return found
