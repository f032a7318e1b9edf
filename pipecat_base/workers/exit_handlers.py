"""Exit handlers that the bot's import registers: those of a template that run in the workers it forks, too."""

from __future__ import annotations

import atexit
import logging
import weakref
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any

from pipecat_base.logs import tracebacks

ENDS_WHAT_IS_SHARED = frozenset(
    {"_exit_callbacks", "_rmtree", "cleanup", "kill", "killpg", "remove", "removedirs", "rmdir", "rmtree"}
    | {"send_signal", "system", "terminate", "unlink"}
)
"""Names by which a handler deletes files or ends processes that the import made once, for all calls."""

Handler = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class ExitHandlers:
    """Notes what is registered with ``atexit`` from its creation on: the interpreter does not list it."""

    def __init__(self) -> None:
        self._handlers: list[Handler] = []
        self._register, self._unregister = atexit.register, atexit.unregister
        atexit.register, atexit.unregister = self._note, self._forget

    def inherit(self) -> None:
        """Register again in a forked process, which has dropped them all, those that can run there."""
        for function, args, kwargs in self._handlers:
            if not _is_known(function) and not _ends_what_is_shared(function, args):
                self._register(function, *args, **kwargs)

    def kept_back(self, project: str) -> list[str]:
        """Describe handlers of the bot's own that run in the template only."""
        return [
            tracebacks.describe(code.co_filename, code.co_firstlineno, "<module>", project)
            for function, args, _ in self._handlers
            if (code := _code_of(function)) is not None
            and tracebacks.is_users(code.co_filename, project)
            and _ends_what_is_shared(function, args)
        ]

    def _note(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        self._register(function, *args, **kwargs)
        self._handlers.append((function, args, kwargs))
        return function

    def _forget(self, function: Callable[..., Any], /) -> None:
        self._unregister(function)
        self._handlers = [handler for handler in self._handlers if handler[0] != function]


def _is_known(function: Any) -> bool:
    """True for the standard library's own, which a forked process registers itself."""
    module = getattr(function, "__module__", None) or ""
    return (
        getattr(function, "__self__", None) is weakref.finalize
        or function is logging.shutdown
        or module.partition(".")[0] == "multiprocessing"
    )


def _ends_what_is_shared(function: Any, args: tuple[Any, ...]) -> bool:
    called = [function, *(argument for argument in args if callable(argument))]
    try:
        return any(_names(each, set()) & ENDS_WHAT_IS_SHARED for each in called)
    except Exception:  # an object of the bot's that is odd to look at
        return True


def _names(function: Any, seen: set[CodeType]) -> set[str]:
    """Names that a function uses, and those that functions of its module use which it calls."""
    function = getattr(function, "func", function)  # of a functools.partial
    name = getattr(function, "__name__", "")
    if _code_of(function) is None:
        function = getattr(function, "__call__", function)  # noqa: B004 - of an object
    code = _code_of(function)
    if code is None:
        return {name}
    if code in seen:
        return set()
    seen.add(code)
    used = set(_names_in(code))
    variables, owner = getattr(function, "__globals__", {}), getattr(function, "__self__", None)
    for name in tuple(used):
        helper = variables[name] if name in variables else getattr(type(owner), name, None)
        found = _code_of(helper)
        if found is not None and found.co_filename == code.co_filename:
            used.discard(name)
            used |= _names(helper, seen)
    return used


def _code_of(function: Any) -> CodeType | None:
    code = getattr(function, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names_in(constant)
