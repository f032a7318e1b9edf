"""Modules that the platform mounts at run time: ``check`` goes on without them, as a build does not have them yet."""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import sys
import tempfile
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

from pipecat_base.config import environment

KRISP = "Krisp's SDK"
MODULES = {"krisp_audio": KRISP, "pipecat_ai_krisp": KRISP}
# pipecat's own turns import the SDK too, and go on without it: only a bot that names Krisp is noted.
IN_SOURCES = rb"(?i)krisp"
REMEDY = (
    "Pipecat Cloud mounts it; elsewhere mount it yourself, or import it only there: "
    'if os.environ.get("ENV") != "local" leaves it out under pipecat-base dev.'
)
# pipecat reads these when its parts for Krisp are made; the platform sets them.
MODELS = tuple(f"KRISP_VIVA_{use}_MODEL_PATH" for use in ("FILTER", "IP", "TURN", "VAD"))


def notes(found: Sequence[str]) -> list[str]:
    return [
        f"the bot imports {name} ({MODULES[name]}), which the platform mounts at run time: not checked"
        for name in found
    ]


@contextlib.contextmanager
def absent_modules_accepted() -> Iterator[list[str]]:
    """Let imports of mounted modules that are not here succeed; gives their names. Their attributes do nothing."""
    with tempfile.NamedTemporaryFile(suffix=".kef") as model:
        finder = _Finder(model.name)
        sys.meta_path.append(finder)  # the last: a module that is here is the one that is imported
        try:
            yield finder.found
        finally:
            sys.meta_path.remove(finder)
            environment.remove(finder.set)


class _Finder(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    def __init__(self, model: str) -> None:
        self._model = model
        self.found: list[str] = []
        self.set: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        is_mounted = name.partition(".")[0] in MODULES
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_mounted else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """Leave it to Python."""

    def exec_module(self, module: ModuleType) -> None:
        setattr(module, "__getattr__", _Anything().__getattr__)  # noqa: B010  (PEP 562)
        if "." not in module.__name__:
            self.found.append(module.__name__)
            self.set += [name for name in MODELS if not environment.read().get(name)]
            environment.add(dict.fromkeys(self.set, self._model))


class _Anything:
    """A value of a module that is not here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return _Anything()

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[type, ...]:
        return ()

    def __ge__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return False

    __gt__, __le__ = __ge__, __lt__
