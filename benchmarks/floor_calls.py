"""The floor for calls: a WebSocket and pipecat's own request handler in a bare FastAPI app, with the same bot."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket
from pipecat.runner.types import SmallWebRTCRunnerArguments, WebSocketRunnerArguments
from pipecat.transports.smallwebrtc.request_handler import SmallWebRTCRequest, SmallWebRTCRequestHandler

sys.path.insert(0, os.getcwd())

from bot import bot

app = FastAPI()
handler = SmallWebRTCRequestHandler(ice_servers=[])
running: set[asyncio.Task[Any]] = set()


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    return {"ready": True}


@app.post("/api/offer")
async def offer(request: SmallWebRTCRequest) -> Any:
    async def start(connection: Any) -> None:
        task = asyncio.ensure_future(bot(SmallWebRTCRunnerArguments(webrtc_connection=connection)))
        running.add(task)
        task.add_done_callback(running.discard)

    return await handler.handle_web_request(request=request, webrtc_connection_callback=start)


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await bot(WebSocketRunnerArguments(websocket=websocket))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
