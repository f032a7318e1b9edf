"""Sessions leave nothing behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psutil
from websockets.asyncio.client import connect

from tests.support.callers import encode, post, settles
from tests.support.launchers import Launcher, until

BOT = """
import asyncio, gc, json, threading


async def bot(args):
    do = args.body.get("do")
    if do == "count":
        gc.collect()
        tasks = [task for task in asyncio.all_tasks() if not task.done()]
        print(json.dumps({"said": True, "tasks": len(tasks), "threads": threading.active_count()}), flush=True)
    if do == "raise":
        raise ValueError
    if do == "echo":
        async for message in args.websocket.iter_text():
            await args.websocket.send_text(message)
    if do == "expire":
        await asyncio.Event().wait()
"""


async def sockets(launcher: Launcher, count: int) -> None:
    for _ in range(count):
        async with connect(f"{launcher.websocket_url()}?body={encode({'do': 'echo'})}", proxy=None) as websocket:
            await websocket.send("x")
            assert await websocket.recv() == "x"


def round_of_sessions(launcher: Launcher, count: int) -> None:
    for _ in range(count):
        assert post(launcher, {"do": "return"}).status_code == 200
        assert post(launcher, {"do": "raise"}).status_code == 500
        assert post(launcher, {"do": "expire"}, x_pcc_max_session_seconds="0.01").status_code == 200
        assert launcher.http.post("/bot", content=b"{").status_code == 400
    asyncio.run(sockets(launcher, count))


def state(launcher: Launcher, process: psutil.Process) -> dict[str, Any]:
    post(launcher, {"do": "count"})
    said = launcher.said()[-1]
    memory = process.memory_info().rss
    return {"tasks": said["tasks"], "threads": said["threads"], "files": process.num_fds(), "memory": memory}


def test_hundreds_of_sessions_leave_no_task_descriptor_thread_or_memory(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(BOT)
    with Launcher(tmp_path, PIPECAT_LOG_LEVEL="ERROR") as launcher:
        process = psutil.Process(launcher.process.pid)
        round_of_sessions(launcher, 25)  # caches fill, pools grow to their size
        before = state(launcher, process)

        def calm() -> bool:
            settled = state(launcher, process)
            return all(settled[name] <= before[name] for name in ("tasks", "threads", "files"))

        def another_round() -> int:
            round_of_sessions(launcher, 40)
            until(calm, f"as few as before ({before})", timeout=15)
            return int(state(launcher, process)["memory"])

        # 200 sessions a round: an object kept for each would show.
        assert settles(another_round, within=500_000)
