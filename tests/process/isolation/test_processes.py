"""How processes are made, kept and ended; what crosses between them."""

from __future__ import annotations

import base64
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.sync.client import connect

from pipecat_base.config.settings import LAUNCHER_SECRETS
from tests.support.bystanders import opened
from tests.support.callers import close_code
from tests.support.launchers import Launcher, until

SILENT = "async def bot(args): ...\n"


def launch(folder: Path, source: str, **variables: Any) -> Launcher:
    (folder / "bot.py").write_text(source)
    return Launcher(folder, **{"PIPECAT_ISOLATION": "process", "DRAIN_NOTICE": "0", **variables})


def test_a_death_is_noticed_while_a_child_holds_the_descriptors(tmp_path: Path) -> None:
    bot = "import os, time\nasync def bot(args):\n    if os.fork() == 0:\n        time.sleep(20)\n    os._exit(3)\n"
    with launch(tmp_path, bot) as launcher:
        began = time.monotonic()
        answer = launcher.http.post("/bot", json={})
        assert time.monotonic() - began < 10
        assert answer.json()["error"]["message"] == "The bot's process ended with exit status 3."


def test_an_import_that_ends_its_process_is_reported_while_its_child_still_runs(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import os, time\nif os.fork() == 0:\n    time.sleep(20)\n    os._exit(0)\nos._exit(4)\n"
    )
    with Launcher(tmp_path, wait=False, PIPECAT_ISOLATION="process") as launcher:
        assert launcher.wait(timeout=10) == 16
        assert "The process that imports the bot ended with exit status 4." in launcher.log()


def test_objects_of_the_import_live_until_the_end(tmp_path: Path) -> None:
    bot = """
import atexit, os, tempfile
kept = tempfile.TemporaryDirectory()
print("folder", kept.name, flush=True)
atexit.register(lambda: print("exit handler in", os.getpid(), flush=True))
async def bot(args):
    assert os.path.isdir(kept.name)
"""
    with launch(tmp_path, bot) as launcher:
        for _ in range(4):
            assert launcher.http.post("/bot", json={}).status_code == 200
        folder = launcher.lines("folder ")[0].split()[1]
        assert launcher.stop() == 0
        handlers = launcher.lines("exit handler")
        assert len(handlers) == len(set(handlers)) > 5, "in each process once"
        assert not os.path.exists(folder)


def test_garbage_collection_skips_objects_of_the_import(tmp_path: Path) -> None:
    bot = """
import gc
kept = [[] for _ in range(50_000)]
def tell(who):
    print(who, "looks at", len(gc.get_objects()), flush=True)
async def readyz():
    tell("lead")
    return True
async def bot(args):
    tell("call")
"""
    with launch(tmp_path, bot, PIPECAT_IDLE_PROCESSES="1") as launcher:
        for _ in range(4):  # the last ones in a process from after the warm-up
            launcher.post({})
        for who in ("lead", "call"):
            assert all(int(line.split()[-1]) < 10_000 for line in launcher.lines(f"{who} ")), who
            assert launcher.lines(f"{who} ")


def test_output_of_the_import_is_printed_once(tmp_path: Path) -> None:
    with launch(tmp_path, f"print('imported')\n{SILENT}", PYTHONUNBUFFERED=None) as launcher:
        for _ in range(3):
            assert launcher.http.post("/bot", json={}).status_code == 200
        assert launcher.stop() == 0
        assert len(launcher.lines("imported")) == 1
        assert not launcher.lines("ERROR")


def test_output_before_a_failing_import_is_printed(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("print('reason')\nraise ValueError\n")
    with Launcher(tmp_path, wait=False, PIPECAT_ISOLATION="process", PYTHONUNBUFFERED=None) as launcher:
        assert launcher.wait() == 15
        assert launcher.lines("reason")


def test_a_setup_that_blocks_its_event_loop_is_killed(tmp_path: Path) -> None:
    bot = f"import time\nasync def setup():\n    time.sleep(60)\n{SILENT}"
    (tmp_path / "bot.py").write_text(bot)
    variables: dict[str, Any] = {"SETUP_TIMEOUT": "0.5", "PIPECAT_PROCESS_START": "fork"}
    with Launcher(tmp_path, wait=False, PIPECAT_ISOLATION="process", **variables) as launcher:
        assert launcher.wait(timeout=15) not in (0, None)
        assert "was not set up in time" in launcher.log()


def test_a_bot_that_dies_again_and_again_is_retried_ever_more_slowly(tmp_path: Path) -> None:
    bot = f"""
import os, threading, pathlib
async def setup():
    if pathlib.Path("lead").exists():
        threading.Timer(0.02, lambda: os._exit(5)).start()
    pathlib.Path("lead").touch()
{SILENT}"""
    with launch(tmp_path, bot, PIPECAT_IDLE_PROCESSES="1") as launcher:
        until(lambda: len(launcher.lines("while it waited for a call (next try in")) >= 3, "three tries")
        assert launcher.lines("it ended with exit status 5 while it waited for a call (next try in 2 s)")
        answer = launcher.http.get("/readyz")
        assert (answer.status_code, answer.json()["ready"]) == (503, False)
        assert len(launcher.lines("ended with exit status 5")) < 8


def test_a_bot_that_breaks_later_is_reported_and_retried(tmp_path: Path) -> None:
    with launch(tmp_path, SILENT) as launcher:
        (fork_server,) = psutil.Process(launcher.process.pid).children()
        (template,) = fork_server.children()
        (tmp_path / "bot.py").write_text("this is no Python\n")
        template.kill()
        launcher.wait_for_log("line 1")
        (tmp_path / "bot.py").write_text(SILENT)
        until(lambda: launcher.http.post("/bot", json={}).status_code == 200, "a process of the new one")


def test_the_launcher_exits_when_the_fork_server_ends(tmp_path: Path) -> None:
    with launch(tmp_path, "async def bot(args):\n    await args.websocket.receive_text()\n") as launcher:
        call = opened(f"ws://127.0.0.1:{launcher.port}/ws-client")
        launcher.wait_for_log("Session started")
        (fork_server,) = psutil.Process(launcher.process.pid).children()
        fork_server.kill()
        assert close_code(call) == 1011
        assert launcher.wait(timeout=10) == 70


@pytest.mark.parametrize(
    "given",
    [{"PIPECAT_POD_TOKEN": "s3cret-token"}, {"\ufeffPIPECAT_POD_TOKEN": '"s3cret-token"'}],
    ids=["plain", "with a BOM and quotation marks"],
)
def test_the_launchers_secrets_are_not_the_bots(tmp_path: Path, given: dict[str, str]) -> None:
    bot = """
import os
async def bot(args):
    everything = open("/proc/self/environ").read() + repr(os.environ)
    assert "s3cret" not in everything and "MINE" in everything
"""
    variables: dict[str, Any] = {**given, "PINLESS_HMAC_SECRET": "s3cret-pin", "MINE": "x"}
    with launch(tmp_path, bot, **variables) as launcher:
        answer = launcher.http.post("/bot", json={}, headers={"x-pipecat-pod-token": "s3cret-token"})
        assert answer.status_code == 200, launcher.log()


SPY = """
import gc, os, re, sys

def looks():
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            yield open(f"/proc/{pid}/environ").read()
        except OSError:
            pass
    gc.unfreeze()
    frame, frames = sys._getframe(), []
    while frame:
        frames.append(frame)
        frame = frame.f_back
    for found in [*gc.get_objects(), *(value for frame in frames for value in frame.f_locals.values())]:
        if type(found).__name__.endswith("Settings") and type(found).__name__ != "Settings":  # its groups
            yield repr(vars(found))

def memory_of_others():
    # The launcher, the process that forks, and the template.
    pid, found = os.getpid(), []
    while True:
        pid = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1])
        if not b"pipecat_base" in open(f"/proc/{pid}/cmdline", "rb").read():
            return found
        found.append(pid)

def holds_secrets(pid):
    try:
        maps, memory = open(f"/proc/{pid}/maps").read(), open(f"/proc/{pid}/mem", "rb", 0)
    except PermissionError:
        return False
    needle = re.compile(rb"s3[c]ret-pipecat")  # which is not a copy itself
    for line in maps.splitlines():
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if line.split()[1].startswith("r") and "[v" not in line:
            try:
                memory.seek(start)
                if needle.search(memory.read(end - start)):
                    return True
            except (OSError, ValueError, OverflowError):
                pass
    return False

in_this_process = holds_secrets(os.getpid())

async def bot(args):
    assert not in_this_process
    found = "".join(looks())
    assert "Settings" not in found and "known to the launcher alone" in found and "seen-by-all" in found
    assert "s3cret" not in found, found
    others = memory_of_others()
    assert len(others) == 3, others
    assert not any(map(holds_secrets, others)), [holds_secrets(pid) for pid in others]
"""


def test_a_bot_that_looks_everywhere_finds_no_secret_of_the_launchers(tmp_path: Path) -> None:
    """As a container's user, who may trace no process that says that it may not be."""
    names = set(LAUNCHER_SECRETS) - {"PIPECAT_REPORT_SECRET"}
    variables: dict[str, Any] = {name: f"s3cret-{name.lower()}" for name in names}
    variables |= {"PINLESS_HMAC_SECRET": "s3cretAA", "OPEN": "seen-by-all", "PIPECAT_GATEWAY": "1"}
    (tmp_path / "bot.py").write_text(SPY)
    no_tracing = ["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"] if os.getuid() == 0 else []
    with Launcher(tmp_path, PIPECAT_ISOLATION="process", prefix=no_tracing, **variables) as launcher:
        headers = {"x-pipecat-pod-token": variables["PIPECAT_POD_TOKEN"]}
        answer = launcher.http.post("/bot", json={}, headers=headers)
        assert answer.status_code == 200, launcher.log()


def test_a_readyz_that_is_no_json_is_an_answer(tmp_path: Path) -> None:
    with launch(tmp_path, f"def readyz():\n    return {{'ready': True, 'x': object()}}\n{SILENT}") as launcher:
        answer = launcher.http.get("/readyz")
        assert (answer.status_code, answer.json()["reason"]) == (200, "readyz() returned a dict that is not JSON")


APP = """
from pipecatcloud_system import app
from starlette.requests import Request
from starlette.responses import StreamingResponse
import asyncio

@app.get("/echo")
async def echo(request: Request):
    return {"headers": dict(request.headers), "client": request.client and request.client.host}

@app.get("/endless")
async def endless():
    async def parts():
        while True:
            yield b"x" * 1000
            await asyncio.sleep(0.01)
    return StreamingResponse(parts())

async def bot(args): ...
"""


def raw(launcher: Launcher, request: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", launcher.port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_requests_to_the_bots_app_are_passed_on_as_they_are(tmp_path: Path) -> None:
    with launch(tmp_path, APP) as launcher:
        answer = raw(launcher, b"GET /echo HTTP/1.1\r\nHost: localhost\r\nX-Spaces: yes  \r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"x-spaces":"yes"' in answer
        assert launcher.http.get("/echo").json()["client"] == "127.0.0.1"
        # A caller that leaves in the middle of an answer is no news.
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", launcher.port)) as connection:
                connection.sendall(b"GET /endless HTTP/1.1\r\nHost: localhost\r\n\r\n")
                connection.recv(1000)
        assert launcher.http.get("/echo").status_code == 200
        assert "Traceback" not in launcher.log()


def test_a_route_with_a_convertor_of_the_bots_own_is_served(tmp_path: Path) -> None:
    bot = """
from pipecatcloud_system import app
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.responses import JSONResponse

register_url_convertor("mine", IntegerConvertor())
app.router.add_route("/number/{n:mine}", lambda request: JSONResponse({"n": request.path_params["n"]}))
async def bot(args): ...
"""
    with launch(tmp_path, bot) as launcher:
        assert launcher.http.get("/number/5").json() == {"n": 5}
        assert launcher.http.get("/number/x").status_code == 404


ECHO = (
    "async def bot(args):\n    async for m in args.websocket.iter_text():\n        await args.websocket.send_text(m)\n"
)


def handshake(key: bytes | None = base64.b64encode(b"0123456789abcdef")) -> bytes:
    lines = [b"GET /ws-client HTTP/1.1", b"Host: localhost", b"Upgrade: websocket", b"Connection: Upgrade"]
    lines += [b"Sec-WebSocket-Version: 13"] + ([b"Sec-WebSocket-Key: " + key] if key else [])
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_a_frame_that_does_not_wait_for_the_answer_reaches_the_bot(tmp_path: Path) -> None:
    frame = b"\x81\x82" + b"\0\0\0\0" + b"hi"
    with (
        launch(tmp_path, ECHO, PIPECAT_IDLE_PROCESSES="1") as launcher,
        socket.create_connection(("127.0.0.1", launcher.port), timeout=10) as client,
    ):
        client.sendall(handshake())
        time.sleep(0.02)
        client.sendall(frame)  # and nothing was answered yet, or just so
        received = b""
        while not received.endswith(b"\x81\x02hi"):
            data = client.recv(65536)
            assert data, received
            received += data
        assert received.startswith(b"HTTP/1.1 101")


def test_a_bad_handshake_takes_no_slot(tmp_path: Path) -> None:
    with launch(tmp_path, ECHO, MAX_SESSIONS="1") as launcher:
        for key in (None, b"short", b"no base64!"):
            assert raw(launcher, handshake(key)).startswith(b"HTTP/1.1 400")
        with connect(f"ws://127.0.0.1:{launcher.port}/ws-client") as client:
            client.send("there")
            assert client.recv(timeout=10) == "there"
        assert not launcher.lines("Refused")


def test_a_client_sees_the_end_of_its_connection_when_it_is_closed(tmp_path: Path) -> None:
    bot = "import asyncio\nasync def bot(args):\n    await args.websocket.close()\n    await asyncio.sleep(8)\n"
    with launch(tmp_path, bot) as launcher, socket.create_connection(("127.0.0.1", launcher.port), 10) as client:
        client.sendall(handshake())
        received = b""
        while b"\x88\x02\x03\xe8" not in received:
            received += client.recv(1000)
        client.sendall(b"\x88\x82" + b"\0\0\0\0" + b"\x03\xe8")
        client.settimeout(5)
        assert client.recv(1000) == b""


def test_a_call_waits_for_a_worker_no_longer_than_its_limit(tmp_path: Path) -> None:
    bot = (
        f"import pathlib, time\nasync def setup():\n    time.sleep(3 if pathlib.Path('lead').exists() else 0)\n{SILENT}"
    )
    bot = bot.replace("async def bot", "    pathlib.Path('lead').touch()\nasync def bot", 1)
    with launch(tmp_path, bot, PIPECAT_PROCESS_TIMEOUT="0.3", PIPECAT_IDLE_PROCESSES="1") as launcher:
        refused = launcher.http.post("/bot", json={})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_process")
        assert refused.headers["retry-after"] == "1"
        until(lambda: launcher.http.post("/bot", json={}).status_code == 200, "a process")


def test_a_session_that_is_ended_while_it_waits_for_a_process_was_cancelled(tmp_path: Path) -> None:
    bot = (
        f"import pathlib, time\nasync def setup():\n    time.sleep(4 if pathlib.Path('lead').exists() else 0)\n{SILENT}"
    )
    bot = bot.replace("async def bot", "    pathlib.Path('lead').touch()\nasync def bot", 1)
    with launch(tmp_path, bot, PIPECAT_IDLE_PROCESSES="1", PIPECAT_GATEWAY="1") as launcher:
        answers: list[httpx.Response] = []
        headers = {"x-daily-session-id": "early"}
        waiting = threading.Thread(
            target=lambda: answers.append(launcher.http.post("/bot", json={}, headers=headers)), daemon=True
        )
        waiting.start()
        until(lambda: launcher.http.get("/sessions/early").status_code == 200, "its place")
        assert launcher.http.delete("/sessions/early").status_code == 200
        waiting.join(10)
        assert answers[0].status_code == 200
        assert answers[0].headers["x-pipecat-session-outcome"] == "cancelled"


def test_a_caller_who_leaves_before_there_is_a_process_frees_the_slot_at_once(tmp_path: Path) -> None:
    bot = f"""
import asyncio, pathlib
async def setup():
    if pathlib.Path("lead").exists():
        await asyncio.sleep(20)
    pathlib.Path("lead").touch()
{SILENT}"""
    with launch(tmp_path, bot, MAX_SESSIONS="1", PIPECAT_GATEWAY="1") as launcher:
        headers = {"x-daily-transport-type": "webrtc", "x-daily-session-id": "left"}
        with pytest.raises(httpx.ReadTimeout):
            launcher.http.post("/bot", json={}, headers=headers, timeout=0.5)
        until(lambda: launcher.http.get("/readyz").status_code == 200, "its place", timeout=5)
        assert launcher.http.get("/sessions/left").json()["outcome"] == "disconnected"


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_uploads_of_a_call_that_crashed_are_deleted(tmp_path: Path, start: str) -> None:
    folder = tmp_path / "uploads"
    bot = "import os\nasync def bot(args):\n    await args.websocket.receive_text()\n    os._exit(1)\n"
    variables = {"PIPECAT_UPLOADS_FOLDER": str(folder), "PIPECAT_PROCESS_START": start, "PIPECAT_PROCESS_TIMEOUT": "30"}
    with launch(tmp_path, bot, **variables) as launcher:
        call = opened(f"ws://127.0.0.1:{launcher.port}/ws-client", **{"x-daily-session-id": "uploads"})
        launcher.wait_for_log("| uploads - Session started")
        files = {"file": ("a.txt", b"hello")}
        answer = launcher.http.post("/files", files=files, headers={"x-daily-session-id": "uploads"})
        assert answer.status_code == 200, answer.text
        assert [path for path in folder.rglob("*") if path.is_file()]
        call.send("die")
        assert close_code(call) == 1011
        until(lambda: not [path for path in folder.rglob("*") if path.is_file()], "the file's end")
