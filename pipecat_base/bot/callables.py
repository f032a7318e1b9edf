"""Kinds of callables, as bots define their functions."""

from __future__ import annotations

import functools
import inspect
from typing import Any


def is_async(function: Any) -> bool:
    """True for async functions, partials and wrappers of one, and objects with an async ``__call__``."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(inspect.unwrap(function)):
        return True
    return not inspect.isclass(function) and inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def is_generator(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    is_coroutine = getattr(getattr(function, "__code__", None), "co_flags", 0) & inspect.CO_ITERABLE_COROUTINE
    return not is_coroutine and (inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function))


def accepts(function: Any, count: int) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return True
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


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
