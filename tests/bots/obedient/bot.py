"""Does what the body says, and prints what it was given."""

import asyncio
import dataclasses
import json
import logging
import sys
import time

from loguru import logger

stdlib = logging.getLogger("users.module")


def say(**things):
    print(json.dumps({"said": True, **things}, default=str), flush=True)


async def bot(args):
    fields = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(args)}
    fields.update(vars(args))
    say(type=type(args).__name__, mro=[f"{c.__module__}.{c.__qualname__}" for c in type(args).__mro__], args=fields)
    body = args.body
    do = body.get("do") if isinstance(body, dict) else None
    try:
        await act(do, body, args)
    finally:
        say(ended=args.session_id)


async def act(do, body, args):
    if do == "raise":
        secret_variable = "s3cr3t-in-a-variable"
        raise ValueError("the bot is broken" if secret_variable else "")  # loguru can show what a line names
    if do == "exit":
        sys.exit(body["status"])
    if do == "exit-in-task":
        task = asyncio.create_task(exit_now())
        await asyncio.sleep(body.get("seconds", 0.2))
    if do == "base-exception":
        raise KeyboardInterrupt
    if do == "sleep":
        await asyncio.sleep(body["seconds"])
    if do == "sleep-and-raise":
        await asyncio.sleep(body["seconds"])
        raise ValueError("the bot is broken")
    if do == "hang":
        await asyncio.Event().wait()
    if do == "swallow":
        await swallow(body["seconds"])
    if do == "slow-finally":
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(body["seconds"])
            say(cleaned=args.session_id)
    if do == "block":
        time.sleep(body["seconds"])
    if do == "block-until":
        open(body["fifo"]).close()  # somebody has opened its other end
    if do == "log":
        logger.info("through loguru {braces}")
        stdlib.info("through logging {braces} %s", "formatted")
    if do == "cancel-itself":
        asyncio.current_task().cancel()
        await asyncio.sleep(1)
    if do == "disconnected":
        from starlette.websockets import WebSocketDisconnect

        raise WebSocketDisconnect(1001)
    if do == "echo":
        async for message in args.websocket.iter_text():
            await args.websocket.send_text(message)
    if do == "close":
        await args.websocket.close(body.get("code", 1000))
    if do == "receive":
        while True:
            await args.websocket.receive_text()


async def exit_now():
    sys.exit(3)


async def swallow(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            pass
