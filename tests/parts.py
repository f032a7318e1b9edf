"""Parts of the launcher, made without a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pipecat_base.logs import logger
from pipecat_base.performance import Performer
from pipecat_base.sessions import Sessions

Bot = Callable[[Any], Coroutine[Any, Any, Any]]


async def nothing() -> None: ...


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
    defaults: dict[str, Any] = {
        "max_sessions": None,
        "max_seconds": None,
        "refusal": lambda: None,
        "lines_of": lambda session_id: logger.contextualize(session_id=session_id),
        "after_each": nothing,
    }
    return Sessions(performer, **{**defaults, **options})
