"""The web application that serves the bot, for bots that add HTTP endpoints of their own (the Session API).

from pipecatcloud_system import app

@app.get("/turns")
async def turns():
    return {"turns": 3}
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import FastAPI

__all__ = ["add_lifespan_to_app", "app"]

# Its spans would have query strings, and with them bodies and tokens. Older versions ignore this.
app = FastAPI(title="bot", telemetry={"tracing": False})


def add_lifespan_to_app(new_lifespan: Callable[[FastAPI], AbstractAsyncContextManager[Any]]) -> None:
    """Run ``new_lifespan(app)`` around the life of the server, inside those that were added before.

    Its first part runs before the launcher is ready, its second after the last session. A mapping that it yields is
    merged into the state of requests.
    """
    earlier = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def merged(served: FastAPI) -> AsyncIterator[dict[str, Any]]:
        async with earlier(served) as first, new_lifespan(served) as second:
            yield {**(first or {}), **(second or {})}

    app.router.lifespan_context = merged
