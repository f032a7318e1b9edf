"""What pipecat's setup file finds: who listens to the session whose bot is being run.

``stage/observers.py`` is loaded by pipecat from its path and imports nothing of this package; it looks this module up
among those that are imported.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

SessionEmit = Callable[[str, str, Mapping[str, Any], float], None]
"""Takes the session's id, a fact's name, its fields, and when, in Unix seconds."""


@dataclass(frozen=True)
class ObserverOptions:
    """What readers want to know.

    Attributes:
        metrics: Have pipelines measure their services, though the bot does not ask for it.
        content: Tell what is said.
        traces: Have pipelines make spans.
    """

    metrics: bool = False
    content: bool = False
    traces: bool = False


@dataclass(frozen=True)
class SessionContext:
    """Listens to one session."""

    session_id: str
    options: ObserverOptions
    take: SessionEmit

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        """A fact of the session."""
        self.take(self.session_id, name, fields, time.time())


current: ContextVar[SessionContext | None] = ContextVar("pipecat_base_listener", default=None)


@contextmanager
def listening(listener: SessionContext) -> Iterator[None]:
    """What is run within, and the tasks that it begins, find this listener."""
    token = current.set(listener)
    try:
        yield
    finally:
        current.reset(token)
