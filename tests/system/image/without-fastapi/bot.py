"""Modules and folders beside bot.py, a variable of the Dockerfile, an endpoint; neither fastapi nor pipecatcloud."""

import os
from pathlib import Path

import httpx
from greetings import greet

from pipecatcloud_system import app


@app.get("/secret")
async def secret():
    return {"length": len(os.environ["MY_SECRET"]), "httpx": httpx.__file__}


async def bot(args):
    print(greet(Path("prompts/name.txt").read_text().strip()), flush=True)
