"""The session whose bot runs in this context; ``bot/observers.py`` finds this module in ``sys.modules``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

SessionEmit = Callable[[str, str, Mapping[str, Any], float], None]
"""Called with the session's id, the event's name, its fields, and its Unix time."""


@dataclass(frozen=True)
class ObserverOptions:
    """With ``metrics``, services measure themselves although the bot has not enabled that."""

    metrics: bool = False
    content: bool = False
    traces: bool = False


@dataclass(frozen=True)
class SessionContext:
    session_id: str
    options: ObserverOptions
    session_emit: SessionEmit

    def emit(self, name: str, fields: Mapping[str, Any]) -> None:
        self.session_emit(self.session_id, name, fields, time.time())


current: ContextVar[SessionContext | None] = ContextVar("pipecat_base_session", default=None)


@contextmanager
def within_session(context: SessionContext) -> Iterator[None]:
    """Make it ``current`` for the code inside, and for the tasks which that code creates."""
    token = current.set(context)
    try:
        yield
    finally:
        current.reset(token)
