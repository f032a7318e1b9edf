"""Find the user's ``bot.py``, import it, and check ``bot`` and the optional hooks."""

from __future__ import annotations

import dis
import functools
import importlib
import importlib.util
import inspect
import os
import re
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from pipecat_base.bot import import_errors
from pipecat_base.bot.project import dotted_name, root, search_path
from pipecat_base.config.suggestions import nearest
from pipecat_base.errors import (
    BotArityInvalid,
    BotFunctionInvalid,
    BotFunctionMissing,
    BotIsFolder,
    BotNotFound,
    HookInvalid,
    StartupError,
)
from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger

BotCallable = Callable[[Any], Any]
Hook = Callable[[], Any]

IMAGES_APP = rb"/opt/pipecat-base/launch\.py"  # the image's own app.py, which is no bot
WRITE_BOT = 'Write "async def bot(args)" in it.'
WRITE_ASYNC = 'A session ends when `bot` returns: write "async def bot(args)", or return what the session must await.'


@dataclass(frozen=True)
class Bot:
    file: Path
    module: ModuleType
    function: BotCallable
    project: str = ""
    setup: Hook | None = None
    teardown: Hook | None = None
    readyz: Hook | None = None
    create_file_storage: Hook | None = None

    @property
    def name(self) -> str:
        return f"bot in {self.file.name}"

    @property
    def hooks(self) -> list[str]:
        return [name for name in HOOKS if getattr(self, name) is not None]


HOOKS = ("setup", "teardown", "readyz", "create_file_storage")
SYNC_HOOKS = ("create_file_storage",)
# The replaced image has no such hooks: an object that has the name by chance is no error.
NEW_HOOKS = ("setup", "teardown")


def load(path: str) -> Bot:
    """Import the bot as Python runs a script or, if it imports relatively, a module. Raises StartupError."""
    file = _find(path)
    project = root(file)  # before the import: the bot may leave the working directory
    return validate(_import(file, project), file, str(project))


def validate(module: ModuleType, file: Path, project: str = "") -> Bot:
    function = _bot_function(module, file)
    hooks = {name: _hook(module, file, name) for name in HOOKS}
    return Bot(file=file, module=module, function=function, project=project, **hooks)


def _find(path: str) -> Path:
    file = Path(os.path.abspath(path))
    if file.is_dir():
        inside = file / "bot.py"
        remedy = f"Name the file: {path.rstrip('/')}/bot.py." if inside.is_file() else "Name a Python file."
        raise BotIsFolder(f"{path} is a folder, not a file.", remedy)
    if not file.exists():
        found_files = file.parent.glob("*.py") if file.parent.is_dir() else ()
        others = sorted(p.name for p in found_files if not _matches(str(p), IMAGES_APP))[:8]
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


def _bot_function(module: ModuleType, file: Path) -> BotCallable:
    if not hasattr(module, "bot"):
        raise BotFunctionMissing(f"{file.name} has no function `bot`; {_functions(module)}.", WRITE_BOT)
    bot = module.bot
    is_generator = any(map(_is_generator, (bot, getattr(bot, "__call__", None))))  # noqa: B004
    if not callable(bot) or is_generator or (inspect.isclass(bot) and not issubclass(bot, Awaitable)):
        raise BotFunctionInvalid(f"`bot` in {file.name} is {kind_of(bot)}, not an async function.", WRITE_BOT)
    if not _accepts(bot, 1):
        raise BotArityInvalid(
            f"`bot` in {file.name} takes {inspect.signature(bot)}, but is called with one positional argument.",
            'Write "async def bot(args)".',
        )
    return bot  # type: ignore[no-any-return]


def _hook(module: ModuleType, file: Path, name: str) -> Hook | None:
    hook = getattr(module, name, None)
    if hook is None or isinstance(hook, ModuleType):
        return None
    if name in NEW_HOOKS and not _is_meant(hook, module):
        logger.warning(f"`{name}` in {file.name} is {kind_of(hook)}, so it is not used as the hook {name}()")
        return None
    remedy = f'Write "def {name}()", or give it another name if it is not the hook.'
    if not callable(hook) or inspect.isclass(hook) or _is_generator(hook):
        raise HookInvalid(f"`{name}` in {file.name} is {kind_of(hook)}, not a function.", remedy)
    if name in SYNC_HOOKS and is_async(hook):
        raise HookInvalid(f"`{name}` in {file.name} is async, but is called without await.", remedy)
    if not _accepts(hook, 0):
        found = f"`{name}` in {file.name} takes {inspect.signature(hook)}"
        if name in NEW_HOOKS:
            logger.warning(f"{found}, so it is not used as the hook {name}()")
            return None
        raise HookInvalid(f"{found}, but is called without arguments.", remedy)
    return hook  # type: ignore[no-any-return]


def misnamed(bot: Bot) -> tuple[str, ...]:
    """Warnings about functions whose names look like misspelled hooks."""
    unused = [name for name in HOOKS if name not in bot.hooks]
    own = [
        name
        for name, value in vars(bot.module).items()
        if inspect.isfunction(value) and value.__module__ == bot.module.__name__ and _accepts(value, 0)
    ]
    found = nearest((name for name in own if name not in HOOKS), unused)
    return tuple(
        f"`{name}` in {bot.file.name} is not called by the launcher; is the hook {hook}() meant?"
        for name, hook in found.items()
    )


def nothing_awaitable(bot: Bot) -> tuple[str, ...]:
    """A warning about an ordinary function that can return nothing but None."""
    function = bot.function
    if is_async(function) or not inspect.isfunction(function) or inspect.isgeneratorfunction(function):
        return ()
    returned = [
        step if step.opname == "RETURN_CONST" else before
        for before, step in pairwise(dis.get_instructions(function))
        if step.opname in ("RETURN_CONST", "RETURN_VALUE")
    ]
    if any(step.opname not in ("RETURN_CONST", "LOAD_CONST") or step.argval is not None for step in returned):
        return ()
    return (f"`bot` in {bot.file.name} is an ordinary function that returns nothing to await. {WRITE_ASYNC}",)


def is_async(function: Any) -> bool:
    """True for async functions, partials and wrappers of one, and objects with an async ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inspect.unwrap(function)):
        return True
    return not inspect.isclass(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _is_generator(function: Any) -> bool:
    is_coroutine = getattr(getattr(function, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE
    return not is_coroutine and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function))


def _accepts(function: Any, count: int) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _functions(module: ModuleType) -> str:
    names = [
        f"{name}()"
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__
    ]
    return f"it has {', '.join(names)}" if names else "it has no functions at all"


def _is_meant(hook: Any, module: ModuleType) -> bool:
    own = inspect.isfunction(hook) and hook.__module__ == module.__name__
    return own or isinstance(hook, functools.partial) or (callable(hook) and is_async(hook))


def kind_of(value: Any) -> str:
    if value is None:
        return "None"
    if inspect.isclass(value):
        return "a class"
    if inspect.isasyncgenfunction(value):
        return "an async generator"
    if inspect.isgeneratorfunction(value):
        return "a generator"
    if inspect.iscoroutinefunction(value):
        return "an async function"
    if inspect.isfunction(value):
        return "an ordinary function"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"


def mentions(project: str, pattern: bytes) -> bool:
    """Search the imported source files of the project, so that slow imports are made early for bots that want them."""
    return any(_matches(file, pattern) for file in sources(project))


def sources(project: str) -> list[str]:
    """The imported source files of the project."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [file for file in files if file and tracebacks.is_users(file, project)]


def _matches(file: str, pattern: bytes) -> bool:
    try:
        return re.search(pattern, Path(file).read_bytes()) is not None
    except OSError:
        return False
