"""Does to its process whatever it is told to: the first text of a WebSocket, or the body's "do"."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any


async def fail() -> None:
    raise ValueError("told to")


async def exit_python() -> None:
    sys.exit(3)


async def exit_now() -> None:
    os._exit(3)


async def crash() -> None:
    ctypes.string_at(0)


async def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def sleep() -> None:
    time.sleep(10)


async def spin() -> None:
    while True:
        pass


async def hold_lock() -> None:
    ctypes.PyDLL(None).sleep(10)  # with the interpreter's lock held


async def eat() -> None:
    eaten = bytearray(300 * 2**20)
    eaten[::4096] = b"x" * len(eaten[::4096])
    await asyncio.sleep(60)


async def many_tasks() -> None:
    await asyncio.gather(*(asyncio.sleep(0.5) for _ in range(10_000)))


async def cancel_all() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(60)


async def close_all() -> None:
    os.closerange(0, 101)
    await asyncio.sleep(60)


async def take_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(9))
    await asyncio.sleep(0.5)


async def ignore_cancellation() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)


async def start_thread() -> None:
    threading.Thread(target=time.sleep, args=(60,)).start()


MISDEEDS = {
    function.__name__: function
    for function in (
        fail,
        exit_python,
        exit_now,
        crash,
        be_killed,
        sleep,
        spin,
        hold_lock,
        eat,
        many_tasks,
        cancel_all,
        close_all,
        take_signals,
        ignore_cancellation,
        start_thread,
    )
}
calls = 0


async def bot(args: Any) -> None:
    global calls
    calls += 1
    websocket = getattr(args, "websocket", None)
    if websocket is None:
        await MISDEEDS.get(args.body.get("do"), nothing)()
        return
    async for message in websocket.iter_text():
        if message in MISDEEDS:
            await MISDEEDS[message]()
        elif message == "who":
            await websocket.send_text(f"{os.getpid()} {calls}")
        else:
            await websocket.send_text(message)


async def nothing() -> None: ...
