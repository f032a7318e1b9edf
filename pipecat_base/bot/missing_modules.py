"""Explains a missing module, and where to get it: the project, the installed pipecat, the platform, or a package."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipecat_base.bot import installed, module_names, mounted, moved_names
from pipecat_base.bot.import_statements import statement_of
from pipecat_base.bot.project import find_module
from pipecat_base.errors import BotImportFailed, DependencyMissing, StartupError

INSTALL = "to requirements.txt or pyproject.toml and install again"


def explain(
    missing: ModuleNotFoundError, *, at: str, reason: str, root: str, searched: Sequence[str], frames: list[str]
) -> StartupError:
    """The error of the line ``at``. ``reason``: another exception's text, if that hid the missing module."""
    name = missing.name or ""
    top = name.partition(".")[0]
    if top in mounted.MODULES:
        return DependencyMissing(f"{at} needs {name}, {mounted.MODULES[top]}.", mounted.REMEDY, frames=frames)
    extra = installed.missing_extra(missing)
    if extra is not None:
        with_extra = f"{installed.PIPECAT}[{extra}]"
        return DependencyMissing(
            f"{at} needs the package {with_extra}: pipecat is installed without {name}.",
            f"Add {with_extra} {INSTALL}.",
            frames=frames,
        )
    is_own = any(_has_module(folder, top) for folder in searched)
    statement = statement_of(missing)
    package = module_names.listed_package_of(statement, below=top if installed.has(top) else "")
    if "." in name and (is_own or (installed.has(top) and package is None)):
        moved = moved_names.advice(statement) if top == "pipecat" and not is_own else None
        return BotImportFailed(
            f"An import in {at} failed: {'your project' if is_own else f'the installed {top}'} has no module {name}.",
            moved or ("Check its name and that it was copied." if is_own else "Check its version."),
            frames=frames,
        )
    lies = find_module(top, root) if package is None else None
    if lies is not None:
        return BotImportFailed(f"{at} imports {top}, which is not found.", _how_to_find(lies, top, root), frames=frames)
    return DependencyMissing(
        f"{at} needs the package {package or top}, which is not installed{reason}.",
        f"Add it {INSTALL}{'' if package else ' (if it is a file of yours, copy it beside the bot)'}.",
        frames=frames,
    )


def _how_to_find(lies: str, top: str, root: str) -> str:
    folder, entry = os.path.split(lies)
    name = os.path.splitext(entry)[0]
    if name != top:
        return f"Your project has {lies}: write {name}, in the same letters."
    dotted = ".".join(filter(None, [*folder.split(os.sep), name]))
    return f"Your project has {lies}: write {dotted}, or set PYTHONPATH={folder or '.'}."


def _has_module(folder: str, name: str) -> bool:
    path = os.path.join(folder, name)
    return os.path.isdir(path) or os.path.isfile(f"{path}.py")
