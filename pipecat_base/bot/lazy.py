"""What takes long to import is imported when it is needed first: once, in a thread, so that calls go on."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Generic, TypeVar

from pipecat_base.errors import NotSupported
from pipecat_base.logs.logger import logger

T = TypeVar("T")


class Lazy(Generic[T]):
    """Something that is built of a module that is not imported yet.

    Args:
        name: What callers and the log call it.
        module: Imported first.
        build: Makes it, on the loop.
    """

    def __init__(self, name: str, module: str, build: Callable[[], T]) -> None:
        self._name = name
        self._module = module
        self._build = build
        self._built: T | None = None
        self._building = asyncio.Lock()

    async def get(self) -> T:
        """It.

        Raises:
            NotSupported: what is installed does not import.
        """
        async with self._building:
            if self._built is None:
                try:
                    await asyncio.to_thread(importlib.import_module, self._module)
                except Exception as error:
                    logger.error(f"{self._name} does not import: {type(error).__name__}: {error}")
                    raise NotSupported(f"{self._name} is installed here, but does not import.") from None
                self._built = self._build()
            return self._built
