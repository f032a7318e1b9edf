"""Imports the app only when a session runs."""

import asyncio


async def bot(args):
    from pipecatcloud_system import app

    @app.get("/late")
    async def late():
        return {"session": args.session_id}

    await asyncio.sleep(args.body.get("seconds", 0))
