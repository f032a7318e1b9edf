import sys


def setup():
    sys.exit(5)


async def bot(args): ...
