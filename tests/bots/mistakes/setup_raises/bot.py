async def setup():
    raise RuntimeError("no database")


async def bot(args): ...
