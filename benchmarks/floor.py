"""The floor: what anyone would write by hand, FastAPI on uvicorn with the same bot imported."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import uvicorn
from fastapi import FastAPI, WebSocket

sys.path.insert(0, os.getcwd())

from bot import bot

app = FastAPI()


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    return {"ready": True}


@app.post("/bot")
async def run(body: dict[str, Any]) -> dict[str, Any]:
    await bot(SimpleNamespace(body=body))
    return {}


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept()
    await bot(SimpleNamespace(body={}, websocket=websocket))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
