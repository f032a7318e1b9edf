"""Parts of the launcher, made without a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pipecat_base.bot.runner import Runs
from pipecat_base.bot.spans import Spans
from pipecat_base.bot.task import Performer
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Report
from pipecat_base.sessions.registry import Board, Session
from pipecat_base.telemetry.session_context import Options

Bot = Callable[[Any], Coroutine[Any, Any, Any]]


class Sessions(Board):
    """A board, and what runs the bot for who is on it."""

    def __init__(self, performer: Performer, **options: Any) -> None:
        super().__init__(**options)
        self.facts: list[tuple[str, str, Mapping[str, Any]]] = []
        self.runs = Runs(
            self,
            performer,
            lines_of=lambda session_id: logger.contextualize(session_id=session_id),
            take=lambda session_id, name, fields, at: self.facts.append((session_id, name, fields)),
            options=Options(),
            spans=Spans({}, bot_sets_up=lambda: False),
            versions={},
            is_shared=True,
        )

    async def run(self, session: Session, arguments: Any, **options: Any) -> Report:
        return await self.runs.run(session, arguments, **options)


def make_sessions(
    bot: Bot, *, cancel_grace: float = 0.1, disconnects: tuple[type[Exception], ...] = (), **options: Any
) -> Sessions:
    """Sessions without limits; ``options`` come before what is chosen here."""
    performer = Performer(
        bot,
        bot_name="bot in bot.py",
        project=".",
        cancel_grace=cancel_grace,
        redact=lambda session_id, text: text,
        disconnects=disconnects,
    )
    defaults: dict[str, Any] = {"max_sessions": None, "max_seconds": None, "refusal": lambda: None}
    return Sessions(performer, **{**defaults, **options})
