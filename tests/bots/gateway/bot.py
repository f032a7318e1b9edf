"""Prints what it was given, stays until it is stopped or told to end, and answers HTTP requests meanwhile."""

import asyncio
import dataclasses
import json
import os
import sys
import uuid

from fastapi import Request
from loguru import logger
from starlette.responses import Response

from pipecatcloud_system import app


def say(**things):
    print(json.dumps({"said": True, **things}, default=str), flush=True)


ended = asyncio.Event()
"""A session has ended."""


class Storage:
    """In memory, telling what it is asked."""

    def __init__(self):
        self.files = {}

    async def save(self, filename, contents):
        if filename == "refused.txt":
            raise OSError("s3cr3t reason")
        if filename == "slow.txt":
            ended.clear()
            say(saving=filename)
            await ended.wait()
            await asyncio.sleep(0.3)  # its session's place is free by now
        url = f"memory:{uuid.uuid4().hex}"
        self.files[url] = contents
        say(saved=url, filename=filename, size=len(contents), type=type(contents).__name__)
        return url

    async def load(self, file_url):
        return self.files[file_url]

    async def delete(self, file_url):
        self.files.pop(file_url)
        say(deleted=file_url)


if os.environ.get("STORAGE"):

    def create_file_storage():
        return Storage()


async def setup():
    await asyncio.sleep(float(os.environ.get("SETUP", "0")))


@app.api_route("/any/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"])
async def any_method(request: Request, path: str):
    logger.info("any was asked")
    body = (await request.body()).decode()
    return {
        "method": request.method,
        "path": path,
        "raw_path": request.scope["raw_path"].decode(),
        "query": request.url.query,
        "headers": [[name.decode(), value.decode()] for name, value in request.scope["headers"]],
        "body": body,
    }


class Back(Response):
    """Each part of the request as soon as it comes; StreamingResponse would read the request itself."""

    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more = True
        while more:
            message = await receive()
            more = message.get("more_body", False)
            await send({"type": "http.response.body", "body": message.get("body", b""), "more_body": more})


@app.post("/back", response_class=Back)
async def back():
    return Back()


@app.get("/status")
async def status():
    return {"mine": True}


@app.get("/broken")
async def broken():
    raise RuntimeError("the endpoint is broken")


async def bot(args):
    fields = {f.name: getattr(args, f.name, None) for f in dataclasses.fields(args)}
    say(type=type(args).__name__, args={**fields, **vars(args)}, gateway="pipecat_base.gateway" in sys.modules)
    body = args.body if isinstance(args.body, dict) else {}
    ready = getattr(args, "ready_event", None)
    if ready is not None and body.get("do") != "never":
        args.cert_fingerprints = ["00ff"]
        ready.set()
    try:
        if body.get("do") == "raise":
            raise ValueError("the bot is broken")
        if body.get("do") == "return":
            return
        if hasattr(args, "websocket") and body.get("do") != "hang":
            async for message in args.websocket.iter_text():
                await args.websocket.send_text(message)
            return
        await asyncio.Event().wait()
    finally:
        say(ended=args.session_id)
        ended.set()
