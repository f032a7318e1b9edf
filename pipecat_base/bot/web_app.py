"""The web application that the bot asked for, by importing ``pipecatcloud_system``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from starlette.routing import BaseRoute

from pipecat_base.bot.packages import BOTS_MODULE


def bots_app() -> Any:
    """The bot's FastAPI app, or None. A session may import it later."""
    return getattr(sys.modules.get(BOTS_MODULE), "app", None)


def bots_routes() -> list[BaseRoute]:
    """Single routes, those of included routers too."""
    app = bots_app()
    if app is None:
        return []
    found: list[Any] = []
    for route in app.router.routes:
        found += [route] if hasattr(route, "path") else _included(route)
    return found


def _included(router: Any) -> Iterable[Any]:
    try:
        from fastapi.routing import iter_route_contexts
    except ImportError:  # older versions list the routes of an included router themselves
        return [router]
    # Each stands for a route, with the prefix that it has got.
    return iter_route_contexts([router])
