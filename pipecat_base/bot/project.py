"""The folders of the bot's project: where Python searches for its modules, as ``python -m`` and uvicorn have it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

RELATIVE_IMPORT = re.compile(rb"^\s*from\s+(\.+)[\w.]*\s+import\b", re.MULTILINE)
NOT_SOURCES = ("node_modules", "site-packages", "__pycache__")
MAX_DEPTH = 4
MAX_FOLDERS = 1000


def root(file: Path) -> Path:
    """The working directory where the bot lies in it; else the folder that holds the bot, or its whole package."""
    here = Path.cwd()
    return here if here in file.parents and here != Path("/") else _above_package(file.parent)


def search_path(file: Path, project: Path) -> list[str]:
    """The bot's folder, and each one above it up to the project's."""
    above = [str(folder) for folder in file.parents]
    return above[: above.index(str(project)) + 1]


def dotted_name(file: Path, project: Path) -> str | None:
    """The bot's name in its package: ``sales.bot``. None where it is a script, without relative imports."""
    dots = max(map(len, RELATIVE_IMPORT.findall(file.read_bytes())), default=0)
    top = _above_package(file.parent)
    if top == file.parent:
        top = project
    while len(file.relative_to(top).parts) <= dots and project in top.parents:
        top = top.parent
    parts = file.relative_to(top).with_suffix("").parts
    return ".".join(parts) if dots and len(parts) > 1 and file.suffix == ".py" else None


def _above_package(folder: Path) -> Path:
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        folder = folder.parent
    return folder


def find_module(name: str, project: str) -> str | None:
    """The project's file or folder with the name of a module, in either case; relative to ``project``."""
    for folder, folders, files in _walk(project):
        for entry in sorted(files) + sorted(folders):
            stem, extension = os.path.splitext(entry)
            is_module = extension == ".py" if entry in files else _has_modules(os.path.join(folder, entry))
            if is_module and stem.lower() == name.lower():
                return os.path.relpath(os.path.join(folder, entry), project)
    return None


def _walk(project: str) -> Iterator[tuple[str, list[str], list[str]]]:
    for count, (folder, folders, files) in enumerate(os.walk(project)):
        depth = os.path.relpath(folder, project).count(os.sep)
        folders[:] = [name for name in sorted(folders) if depth < MAX_DEPTH and _has_sources(folder, name)]
        yield folder, folders, files
        if count == MAX_FOLDERS:
            return


def _has_sources(folder: str, name: str) -> bool:
    is_environment = os.path.exists(os.path.join(folder, name, "pyvenv.cfg"))
    return not (name.startswith(".") or name in NOT_SOURCES or is_environment)


def _has_modules(folder: str) -> bool:
    return any(entry.endswith(".py") for entry in os.listdir(folder))
