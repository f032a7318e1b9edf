"""Parts of the launcher, made without a server."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from pipecat_base.logs import logger
from pipecat_base.sessions import Sessions

Bot = Callable[[Any], Coroutine[Any, Any, Any]]


async def nothing() -> None: ...


def make_sessions(bot: Bot, **options: Any) -> Sessions:
    """Sessions without limits; ``options`` come before what is chosen here."""
    defaults: dict[str, Any] = {
        "bot_name": "bot in bot.py",
        "project": ".",
        "max_sessions": None,
        "max_seconds": None,
        "cancel_grace": 0.1,
        "refusal": lambda: None,
        "lines_of": lambda session_id: logger.contextualize(session_id=session_id),
        "redact": lambda session_id, text: text,
        "after_each": nothing,
    }
    return Sessions(bot, **{**defaults, **options})
