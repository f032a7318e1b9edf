"""Short calls on every transport, and a route that counts what is alive in the process that answers it."""

import asyncio
import gc
import os
import sys
import time

from pipecatcloud_system import app


@app.get("/alive")
async def alive():
    # asyncio's threads start when they are needed, and stay: all of them are there before anybody counts.
    await asyncio.gather(*(asyncio.to_thread(time.sleep, 0.1) for _ in range(min(32, os.cpu_count() + 4))))
    gc.collect()
    tasks = [task for task in asyncio.all_tasks() if not task.done()]
    return {"pid": os.getpid(), "tasks": len(tasks), "blocks": sys.getallocatedblocks()}


async def bot(args):
    if hasattr(args, "webrtc_connection"):
        await meet(args.webrtc_connection, args.body or {})
    elif hasattr(args, "websocket"):
        async for message in args.websocket.iter_text():
            await args.websocket.send_text(message)
    elif args.body.get("do") == "raise":
        raise ValueError("told to")
    elif args.body.get("do") == "stay":
        await asyncio.Event().wait()


async def meet(connection, body):
    """Says back what comes over the data channel until the caller leaves; without one it leaves first."""
    connected, over = asyncio.Event(), asyncio.Event()

    @connection.event_handler("app-message")
    async def on_message(connection, message):
        connection.send_app_message(message)

    @connection.event_handler("connected")
    async def on_connected(connection):
        connected.set()

    @connection.event_handler("closed")
    async def on_closed(connection):
        over.set()

    await connection.connect()
    if body.get("do") == "leave":
        await connected.wait()
        await asyncio.sleep(0.2)
    else:
        await over.wait()
