async def setup():
    raise TimeoutError("no answer from the database")


async def bot(args): ...
