"""Parts of the launcher, made without a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from pipecat_base.bot.runner import BotRunner
from pipecat_base.bot.spans import Spans
from pipecat_base.bot.task import BotFunction
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Report
from pipecat_base.sessions.registry import Session, SessionRegistry
from pipecat_base.telemetry.session_context import ObserverOptions

Bot = Callable[[Any], Coroutine[Any, Any, Any]]


class Sessions(SessionRegistry):
    """A registry, and a runner for its sessions."""

    def __init__(self, bot: BotFunction, **options: Any) -> None:
        super().__init__(**options)
        self.events: list[tuple[str, str, Mapping[str, Any]]] = []
        self.runs = BotRunner(
            self,
            bot,
            lines_of=lambda session_id: logger.contextualize(session_id=session_id),
            emit=lambda session_id, name, fields, at: self.events.append((session_id, name, fields)),
            options=ObserverOptions(),
            spans=Spans({}, bot_sets_up=lambda: False),
            session_info={},
            is_shared=True,
        )

    async def run(self, session: Session, arguments: Any, **options: Any) -> Report:
        return await self.runs.run(session, arguments, **options)


def make_sessions(
    bot: Bot, *, cancel_grace: float = 0.1, disconnects: tuple[type[Exception], ...] = (), **options: Any
) -> Sessions:
    """Sessions without limits; ``options`` come before what is chosen here."""
    function = BotFunction(
        bot,
        name="bot in bot.py",
        project=".",
        cancel_grace=cancel_grace,
        redact=lambda session_id, text: text,
        disconnects=disconnects,
    )
    defaults: dict[str, Any] = {"max_sessions": None, "max_seconds": None, "refusal": lambda: None}
    return Sessions(function, **{**defaults, **options})
