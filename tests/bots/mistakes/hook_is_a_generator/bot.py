def setup():
    yield


async def bot(args): ...
