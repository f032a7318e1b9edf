readyz = True


async def bot(args): ...
