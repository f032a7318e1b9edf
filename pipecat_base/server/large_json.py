"""JSON of any size without a pause for other calls: large texts are parsed and written in a thread that gives way.

Python's C code for JSON holds the interpreter for a whole text: a second for a million keys. Its pure code in a thread
is slower, and gives way every few milliseconds. One text at a time, so that no more than one thread competes.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from json import scanner
from typing import Any, TypeVar

T = TypeVar("T")

SMALL_BYTES = 64 * 1024
"""A text of this size takes Python's C code a few milliseconds, whatever is in it."""
SMALL_NODES = 2000
"""Values and keys of what is written at once."""


class SwitchableDecoder(json.JSONDecoder):
    """As ``json.JSONDecoder``, in Python: other threads get their turn while it parses."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def is_large(value: Any) -> bool:
    """Whether writing a value takes long; the look itself is bounded."""
    waiting, nodes, characters = [value], 1, 0
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            characters += len(found)
        elif isinstance(found, int) and not -(10**18) < found < 10**18:
            characters += found.bit_length() // 3
        elif isinstance(found, list | dict):
            nodes += len(found)
            if nodes <= SMALL_NODES:
                waiting += found
                waiting += found.values() if isinstance(found, dict) else ()
        if nodes > SMALL_NODES or characters > SMALL_BYTES:
            return True
    return False


async def in_background(step: Callable[..., T], *arguments: Any) -> T:
    """The result of a step, after those that were begun before."""
    return await asyncio.get_running_loop().run_in_executor(_background(), step, *arguments)


async def dumps(value: Any) -> bytes:
    """A value as JSON."""
    if not is_large(value):
        return json.dumps(value).encode()
    return await in_background(lambda: "".join(_pieces(value)).encode())


async def to_file(value: Any) -> int:
    """The descriptor of a file in memory that holds a value as JSON."""
    descriptor = os.memfd_create("body")
    try:
        await in_background(_write, value, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextlib.asynccontextmanager
async def in_file(value: Any) -> AsyncIterator[tuple[Any, list[int]]]:
    """For another process: a small value and no descriptor, or None and that of a file that holds it."""
    if not is_large(value):
        yield value, []
        return
    descriptor = await to_file(value)
    try:
        yield None, [descriptor]
    finally:
        os.close(descriptor)


def from_file(descriptor: int) -> Any:
    """The value again; the descriptor is closed."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return json.load(file)


def _write(value: Any, descriptor: int) -> None:
    with open(descriptor, "w", encoding="ascii", closefd=False) as file:
        for piece in _pieces(value):
            file.write(piece)


def _pieces(value: Any) -> Any:
    # Not encode(), which is C: this is the same in Python.
    return json.JSONEncoder(separators=(",", ":")).iterencode(value)


@functools.cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "json")
