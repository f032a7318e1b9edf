"""Echoes text; its app answers over HTTP, and reads what it is told not to."""

from __future__ import annotations

import asyncio
from typing import Any

from pipecatcloud_system import app
from starlette.requests import Request


@app.post("/swallow")
async def swallow(request: Request) -> dict[str, int]:
    return {"size": len(await request.body())}


@app.get("/large")
async def large() -> dict[str, str]:
    return {"text": "x" * 200_000}


async def bot(args: Any) -> None:
    if not hasattr(args, "websocket"):
        await asyncio.sleep(30)
        return
    async for message in args.websocket.iter_text():
        if message == "end":
            return
        if message == "sleep":
            await asyncio.sleep(60)
        await args.websocket.send_text(message)
