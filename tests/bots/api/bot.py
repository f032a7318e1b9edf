"""Adds HTTP endpoints of its own, some of them in the way of ours."""

import asyncio
import contextlib
import os

from fastapi import APIRouter, Request, WebSocket
from loguru import logger

from pipecatcloud_system import add_lifespan_to_app, app


router = APIRouter()


@contextlib.asynccontextmanager
async def first(app):
    print("first begins", flush=True)
    await asyncio.sleep(float(os.environ.get("LIFESPAN", "0")))
    yield {"colour": "blue"}
    print("first ends", flush=True)


@contextlib.asynccontextmanager
async def second(app):
    print("second begins", flush=True)
    async with asyncio.timeout(None) if hasattr(asyncio, "timeout") else contextlib.nullcontext():
        yield
    print("second ends", flush=True)


add_lifespan_to_app(first)
add_lifespan_to_app(second)


@app.post("/whatsapp")
async def whatsapp():
    return {"mine": True}


@app.get("/status")
async def status(request: Request):
    logger.info("status was asked")
    return {"colour": request.state.colour}


@app.get("/livez")
async def my_livez():
    return {"mine": True}


@router.get("/readyz")
async def my_readyz():
    return {"mine": True}


app.include_router(router)


@app.get("/bot")
async def page():
    return {"page": True}


@app.api_route("/any", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def any_method(request: Request):
    return {"method": request.method}


@app.get("/broken")
async def broken():
    raise RuntimeError("the endpoint is broken")


@app.get("/slow")
async def slow(seconds: float):
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.websocket("/mine")
async def mine(websocket: WebSocket):
    await websocket.accept()
    await websocket.send_text("mine")
    await websocket.close()


async def bot(args):
    @app.get("/added-in-session")
    async def added():
        return {"session": args.session_id}

    await asyncio.sleep(args.body.get("seconds", 0))
