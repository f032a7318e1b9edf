"""Answers WhatsApp calls through a Graph API of the test's; what it then does is in DO."""

import asyncio
import importlib.util
import json
import os
from pathlib import Path

DO = os.environ.get("DO", "echo")

spec = importlib.util.spec_from_file_location("echo", Path(__file__).parents[3] / "examples" / "echo" / "bot.py")
echo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(echo)


def say(**things):
    print(json.dumps({"said": True, **things}), flush=True)


async def bot(args):
    call = args.body
    say(
        type=type(args).__name__,
        session=args.session_id,
        body=type(call).__name__,
        id=call.id,
        caller=call.from_,
        flow=args.flow_config,
    )
    try:
        if DO == "echo":
            await echo.bot(args)
        if DO == "hang":
            await asyncio.Event().wait()
        if DO == "raise":
            raise ValueError("the bot is broken")
    finally:
        say(ended=args.session_id)
