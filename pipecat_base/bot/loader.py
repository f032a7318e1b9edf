"""Find the user's ``bot.py``, and import it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
from pathlib import Path
from types import ModuleType

from pipecat_base.bot import import_errors
from pipecat_base.bot.functions import Bot, validate
from pipecat_base.bot.project import dotted_name, root, search_path
from pipecat_base.bot.sources import matches
from pipecat_base.errors import (
    BotIsFolder,
    BotNotFound,
    StartupError,
)

IMAGES_APP = rb"/opt/pipecat-base/launch\.py"  # the image's own app.py, which is no bot


def load(path: str) -> Bot:
    """Import the bot as Python runs a script or, if it imports relatively, a module. Raises StartupError."""
    file = _find(path)
    project = root(file)  # before the import: the bot may leave the working directory
    return validate(_import(file, project), file, str(project))


def _find(path: str) -> Path:
    file = Path(os.path.abspath(path))
    if file.is_dir():
        inside = file / "bot.py"
        remedy = f"Name the file: {path.rstrip('/')}/bot.py." if inside.is_file() else "Name a Python file."
        raise BotIsFolder(f"{path} is a folder, not a file.", remedy)
    if not file.exists() or matches(str(file), IMAGES_APP):
        found_files = file.parent.glob("*.py") if file.parent.is_dir() else ()
        others = sorted(p.name for p in found_files if not matches(str(p), IMAGES_APP))[:8]
        found = f" It has {', '.join(others)}." if others else ""
        raise BotNotFound(
            f"There is no {file.name} in {file.parent}.{found}",
            'Put a file with "async def bot(args)" there (in an image: COPY ./bot.py bot.py), '
            "or name another one with --bot or PIPECAT_BOT.",
        )
    if not os.access(file, os.R_OK):
        raise BotNotFound(
            f"{file} cannot be read by uid {os.getuid()}.", "Make it readable: chmod 644, or COPY --chmod=644."
        )
    return file


def _import(file: Path, project: Path) -> ModuleType:
    searched = search_path(file, project)
    sys.path[:] = [*searched, *(entry for entry in sys.path if entry not in searched)]
    sys.argv = [str(file)]  # the launcher's own options are not the bot's
    name = dotted_name(file, project)
    try:
        return (name and _import_in_package(name, file)) or _import_script(file)
    except StartupError:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            raise  # a person pressed Ctrl-C
        raise import_errors.explain(error, file, str(project)) from error


def _import_in_package(name: str, file: Path) -> ModuleType | None:
    """Import the bot under its whole name; None where Python finds another package of that name."""
    package = name.rpartition(".")[0]
    above = str(file.parents[name.count(".")])
    if above not in sys.path:
        sys.path.append(above)
    try:
        found = importlib.import_module(package)
    except ModuleNotFoundError as error:
        if not f"{package}.".startswith(f"{error.name}."):
            raise
        return None
    return importlib.import_module(name) if str(file.parent) in getattr(found, "__path__", ()) else None


def _import_script(file: Path) -> ModuleType:
    # A file named like an imported module (platform.py) must not replace it.
    name = file.stem if file.stem not in sys.modules else "bot"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BotNotFound(f"{file.name} is not a Python file.", "Its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
