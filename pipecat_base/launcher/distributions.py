"""Packages that are installed while the launcher runs."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

FOLDERS = ("site-packages", "dist-packages")


class Distributions:
    """The packages of an environment; ``path`` is its ``sys.path``."""

    def __init__(self, path: Sequence[str]) -> None:
        self._folders = [entry for entry in path if os.path.basename(entry) in FOLDERS]
        self.forget_new()

    def forget_new(self) -> None:
        self._known = self._seen = set(self._listed())

    def take_new(self) -> set[str]:
        """Names and versions of packages installed since the last call (``redis-5.0``), once no more arrive."""
        seen, self._seen = self._seen, set(self._listed())
        if self._seen != seen:
            return set()
        found, self._known = seen - self._known, seen
        return found

    def _listed(self) -> Iterator[str]:
        for folder in self._folders:
            with contextlib.suppress(OSError):
                for entry in os.listdir(folder):
                    # Installers write this file last.
                    if entry.endswith(".dist-info") and os.path.exists(os.path.join(folder, entry, "RECORD")):
                        yield entry.removesuffix(".dist-info")
