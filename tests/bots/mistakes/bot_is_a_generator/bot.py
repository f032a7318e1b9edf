async def bot(args):
    yield 1
