"""Works in a process of its own, as model inference does."""

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

from work import square


async def bot(args):
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        squared = await asyncio.get_running_loop().run_in_executor(pool, square, args.body["number"])
    print("squared", squared, flush=True)
