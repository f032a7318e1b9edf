import asyncio


async def setup():
    print("setting up", flush=True)
    await asyncio.sleep(60)


async def bot(args): ...
