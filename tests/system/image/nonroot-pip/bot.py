"""Says where its packages are."""

import httpx


async def bot(args):
    print("said", httpx.__file__, flush=True)
