"""The web application that the bot asked for, by importing ``pipecatcloud_system``."""

from __future__ import annotations

import sys
from typing import Any

from starlette.routing import BaseRoute

from pipecat_base.bot.packages import BOTS_MODULE


def bots_app() -> Any:
    """The bot's FastAPI app, or None. A session may import it later."""
    return getattr(sys.modules.get(BOTS_MODULE), "app", None)


def bots_routes() -> list[BaseRoute]:
    app = bots_app()
    return [] if app is None else list(app.router.routes)
