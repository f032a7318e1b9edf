"""Slow imports, made once and in a thread when they are needed first, so that calls continue meanwhile."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Generic, TypeVar

from pipecat_base.errors import NotSupported
from pipecat_base.logs.logger import logger

T = TypeVar("T")


class LazyImport(Generic[T]):
    """Imports a module when it is needed first, then calls ``build`` on the event loop."""

    def __init__(self, name: str, module: str, build: Callable[[], T]) -> None:
        self._name = name
        self._module = module
        self._build = build
        self._built: T | None = None
        self._building = asyncio.Lock()

    async def get(self) -> T:
        """Return the built object. Raises NotSupported if the module does not import."""
        async with self._building:
            if self._built is None:
                try:
                    await asyncio.to_thread(importlib.import_module, self._module)
                except Exception as error:
                    logger.error(f"{self._name} does not import: {type(error).__name__}: {error}")
                    raise NotSupported(f"{self._name} is installed here, but does not import.") from None
                self._built = self._build()
            return self._built
