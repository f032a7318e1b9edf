"""Random numbers in forked processes: each draws its own."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

from pipecat_base.logs.tracebacks import is_users


def reseed(project: str) -> None:
    """Seed numpy's global generator, and generators in globals of the bot's own modules.

    Python itself seeds ``random`` after a fork. Generators elsewhere, such as attributes of objects, stay as they are.
    """
    numpy: Any = sys.modules.get("numpy.random")
    kinds: tuple[Any, ...] = (random.Random,)
    if numpy is not None:
        numpy.seed()
        kinds = (random.Random, numpy.RandomState)
    for value in _globals(project):
        if isinstance(value, kinds):
            value.seed()
        elif numpy is not None and isinstance(value, numpy.Generator):
            value.bit_generator.state = type(value.bit_generator)().state


def _globals(project: str) -> Iterator[Any]:
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and is_users(file, project):
            yield from list(vars(module).values())
