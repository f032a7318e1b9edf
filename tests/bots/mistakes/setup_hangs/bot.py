import threading


def setup():
    threading.Event().wait()


async def bot(args): ...
