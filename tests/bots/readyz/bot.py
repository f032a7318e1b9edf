"""readyz() does what READYZ says."""

import os
import time
import asyncio

DO = os.environ["READYZ"]

if DO == "async-hang":

    async def readyz():
        await asyncio.Event().wait()

else:

    def readyz():
        if DO == "block":
            print("readyz blocks", flush=True)
            time.sleep(60)
        if DO == "raise":
            raise RuntimeError("no database")
        return {"true": True, "false": False, "dict": {"ready": True, "queue": 3}, "keyless": {}, "none": None}[DO]


async def bot(args): ...
