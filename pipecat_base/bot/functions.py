"""``bot`` and the optional hooks of the user's module, checked before they are called."""

from __future__ import annotations

import dis
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from pipecat_base.bot.callables import accepts, is_async, is_generator, kind_of
from pipecat_base.config.suggestions import nearest
from pipecat_base.errors import BotArityInvalid, BotFunctionInvalid, BotFunctionMissing, HookInvalid
from pipecat_base.logs.logger import logger

BotCallable = Callable[[Any], Any]
Hook = Callable[[], Any]

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


def validate(module: ModuleType, file: Path, project: str = "") -> Bot:
    function = _bot_function(module, file)
    hooks = {name: _hook(module, file, name) for name in HOOKS}
    return Bot(file=file, module=module, function=function, project=project, **hooks)


def _bot_function(module: ModuleType, file: Path) -> BotCallable:
    if not hasattr(module, "bot"):
        raise BotFunctionMissing(f"{file.name} has no function `bot`; {_functions(module)}.", WRITE_BOT)
    bot = module.bot
    generates = any(map(is_generator, (bot, getattr(bot, "__call__", None))))  # noqa: B004
    if not callable(bot) or generates or (inspect.isclass(bot) and not issubclass(bot, Awaitable)):
        raise BotFunctionInvalid(f"`bot` in {file.name} is {kind_of(bot)}, not an async function.", WRITE_BOT)
    if not accepts(bot, 1):
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
    if not callable(hook) or inspect.isclass(hook) or is_generator(hook):
        raise HookInvalid(f"`{name}` in {file.name} is {kind_of(hook)}, not a function.", remedy)
    if name in SYNC_HOOKS and is_async(hook):
        raise HookInvalid(f"`{name}` in {file.name} is async, but is called without await.", remedy)
    if not accepts(hook, 0):
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
        if inspect.isfunction(value) and value.__module__ == bot.module.__name__ and accepts(value, 0)
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
    if not returned or any(
        step.opname not in ("RETURN_CONST", "LOAD_CONST") or step.argval is not None for step in returned
    ):
        return ()
    return (f"`bot` in {bot.file.name} is an ordinary function that returns nothing to await. {WRITE_ASYNC}",)


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
