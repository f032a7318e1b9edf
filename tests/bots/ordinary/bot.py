"""An ordinary function: returns what the body names."""

import asyncio
import functools
import time


async def say(args):
    await asyncio.sleep(0.1)
    print("said in", args.session_id, flush=True)


class Awaitable:
    def __init__(self, args):
        self.args = args

    def __await__(self):
        return say(self.args).__await__()


async def fail(args):
    await asyncio.sleep(0)
    raise ValueError("told to")


async def hang(args):
    try:
        await asyncio.Event().wait()
    finally:
        print("left", args.session_id, flush=True)


def gathered(args):
    return asyncio.gather(asyncio.sleep(0), say(args))


def future(args):
    found = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.1, lambda: (print("said in", args.session_id, flush=True), found.set_result(1)))
    return found


def thread(args):
    return asyncio.get_running_loop().run_in_executor(None, lambda: print("said in", args.session_id, flush=True))


def generator(args):
    yield 1


async def async_generator(args):
    yield 1


RETURNED = {
    "coroutine": say,
    "task": lambda args: asyncio.create_task(say(args)),
    "future": future,
    "gathered": gathered,
    "thread": thread,
    "awaitable": Awaitable,
    "partial": functools.partial(say),
    "failing task": lambda args: asyncio.create_task(fail(args)),
    "hanging task": lambda args: asyncio.create_task(hang(args)),
    "nothing": lambda args: None,
    "blocking": lambda args: time.sleep(1.5),
    "dict": lambda args: {"status": "ok"},
    "not called": lambda args: say,
    "generator": generator,
    "async generator": async_generator,
    "asyncio.run": lambda args: asyncio.run(say(args)),
}


def logged(function):  # without functools.wraps
    def wrapper(args):
        return function(args)

    return wrapper


@logged
def bot(args):
    return RETURNED[args.body["returns"]](args)
