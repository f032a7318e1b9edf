"""Does to its process whatever it is told to: the first text of a WebSocket, or the body's "do"."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import signal
import struct
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


WAIT = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
EAT = f"eaten = bytearray({300 * 2**20}); eaten[::4096] = b'x' * len(eaten[::4096]); {WAIT}"
BE_DAEMON = f"import os; os.fork() and os._exit(0); os.setsid(); {WAIT}"

HOP = "\n".join(
    (
        "import os, time",
        "print(os.getpid(), flush=True)",
        "until = time.monotonic() + 30",
        "while time.monotonic() < until:",
        "    os.fork() and os._exit(0)",
    )
)


async def kill_group() -> None:
    os.killpg(0, signal.SIGKILL)


async def run_script_that_kills() -> None:
    await (await asyncio.create_subprocess_exec("sh", "-c", "trap 'kill -9 0' EXIT; exit 1")).wait()


async def leave_child(code: str = WAIT, **how: Any) -> None:
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE, **how)
    assert child.stdout is not None
    print(json.dumps({"said": True, "child": int(await child.stdout.readline())}), flush=True)


async def leave_session() -> None:
    await leave_child(start_new_session=True)


async def leave_daemon() -> None:
    await leave_child(BE_DAEMON)


async def leave_hopper() -> None:
    await leave_child(HOP)


async def leave_hopper_in_session() -> None:
    await leave_child(HOP, start_new_session=True)


async def move_child_to_another_call() -> None:
    others = [int(pid) for pid in os.listdir("/proc") if pid.isdecimal() and parent_of(pid) == os.getppid()]
    worker = max(pid for pid in others if pid != os.getpid())
    await leave_child(f"import os; os.setpgid(0, {worker}); {WAIT}")


async def move_child_to_the_launchers_group() -> None:
    await leave_child(f"import os; os.setpgid(0, {os.getsid(0)}); {WAIT}")


def parent_of(pid: str) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(")")[2].split()[1])
    return 0


async def eat_in_child() -> None:
    await leave_child(EAT, start_new_session=True)
    await asyncio.sleep(60)


def channel() -> Any:
    """That to the launcher."""
    from pipecat_base.workers.ipc.channel import Channel

    return next(found for found in gc.get_objects() if isinstance(found, Channel) and not found.ended)


def send(content: bytes) -> None:
    sock = channel()._sock
    sock.setblocking(True)
    with contextlib.suppress(OSError):
        sock.sendall(struct.pack("!IB", len(content), 0) + content)


async def send_large() -> None:
    for number in range(120):
        url = "u" * 3_500_000
        send(json.dumps(["FileStored", {"session_id": f"s{number}", "url": url}]).encode())


async def send_frames() -> None:
    for _ in range(30):
        send(json.dumps(["Reply", {"number": 1, "value": [[]] * 1_000_000}]).encode())


async def send_ill_typed() -> None:
    for _ in range(5000):
        send(b'["StateEntered",{"session_id":["s"],"state":5}]')


async def send_flood() -> None:
    for _ in range(100_000):
        send(b'["StateEntered",{"session_id":"s","state":"running"}]')


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
        kill_group,
        run_script_that_kills,
        leave_child,
        leave_session,
        leave_daemon,
        send_large,
        send_frames,
        send_ill_typed,
        send_flood,
        leave_hopper,
        leave_hopper_in_session,
        move_child_to_another_call,
        move_child_to_the_launchers_group,
        eat_in_child,
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
