"""Stays until it is stopped, reads whatever a WebSocket brings, and answers requests meanwhile."""

import asyncio
from typing import Any

from fastapi import Request

from pipecatcloud_system import app


@app.api_route("/any/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def any_method(request: Request, path: str) -> dict[str, int]:
    return {"size": len(await request.body())}


async def bot(args: Any) -> None:
    if not hasattr(args, "websocket"):
        await asyncio.Event().wait()
    while (await args.websocket.receive())["type"] != "websocket.disconnect":
        pass
