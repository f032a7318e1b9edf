"""JSON of any size without blocking the event loop: large texts are handled in a thread that yields.

Python's C code for JSON holds the GIL for a whole text: a second for a million keys. Pure Python in a thread is slower
but yields every few milliseconds. One text at a time, so that only one thread competes with the event loop.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from json import scanner
from typing import Any, TypeVar

T = TypeVar("T")

SMALL_BYTES = 64 * 1024  # Python's C code handles a text of this size in a few milliseconds, whatever it contains
SMALL_NODES = 2000


class SwitchableDecoder(json.JSONDecoder):
    """``json.JSONDecoder`` in pure Python: other threads run while it parses."""

    def __init__(self, **hooks: Any) -> None:
        super().__init__(**hooks)
        self.scan_once = scanner.py_make_scanner(self)  # type: ignore[attr-defined]


def is_large(value: Any) -> bool:
    """True when writing the value would take long; this check itself is bounded."""
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
    return await asyncio.get_running_loop().run_in_executor(_background(), step, *arguments)


async def dumps(value: Any) -> bytes:
    if not is_large(value):
        return json.dumps(value).encode()
    return await in_background(lambda: "".join(_pieces(value)).encode())


def _pieces(value: Any) -> Any:
    # Not encode(), which is C code; iterencode() is Python.
    return json.JSONEncoder(separators=(",", ":")).iterencode(value)


@functools.cache
def _background() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "json")
