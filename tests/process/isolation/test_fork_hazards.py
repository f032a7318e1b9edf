"""Processes fork only from a template that holds nothing which calls must not share."""

from __future__ import annotations

import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import Launcher, free_port

FALLING_BACK = "Falling back to PIPECAT_PROCESS_START=spawn"


def launch(folder: Path, source: str, **variables: Any) -> Launcher:
    (folder / "bot.py").write_text(source)
    settings = {"PIPECAT_ISOLATION": "process", "DRAIN_NOTICE": "0", "PIPECAT_PROCESS_TIMEOUT": "30"}
    return Launcher(folder, **{**settings, **variables})


def said_by_two_calls(launcher: Launcher) -> list[str]:
    """What the bot prints after "said" in two calls at once."""
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda _: launcher.http.post("/bot", json={}, timeout=40), range(2)))
    assert [answer.status_code for answer in answers] == [200, 200], launcher.log()
    return sorted(line.partition("said ")[2] for line in launcher.log().splitlines() if line.startswith("said "))


class Numbered(socketserver.StreamRequestHandler):
    """Answers each line with it."""

    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(line)


@pytest.fixture
def server() -> Iterator[int]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Numbered) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_connection_that_the_import_opened_is_not_shared_by_calls(tmp_path: Path, server: int) -> None:
    bot = f"""
import os, socket
connection = socket.create_connection(("127.0.0.1", {server}))
lines = connection.makefile("rb")
async def bot(args):
    for number in range(300):
        asked = b"%d %d\\n" % (os.getpid(), number)
        connection.sendall(asked)
        assert lines.readline() == asked
    print("said", connection.getsockname()[1], flush=True)
"""
    with launch(tmp_path, bot) as launcher:
        launcher.wait_for_log(
            f"{FALLING_BACK}: a fork would share or lose what the bot's import has made (a connection to"
        )
        assert f"a connection to 127.0.0.1:{server}" in launcher.log()
        assert len(set(said_by_two_calls(launcher))) == 2


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), name='m', daemon=True).start()",
            "thread m",
        ),
        ("import asyncio\nloop = asyncio.new_event_loop()", "an event loop"),
        ("import multiprocessing\nqueue = multiprocessing.Queue()", "a pipe, perhaps of a process pool or a queue"),
        ("import socket\nsock = socket.socket(type=socket.SOCK_DGRAM)\nsock.bind(('', 0))", "a socket on 0.0.0.0:"),
        (
            "import sqlite3\ndb = sqlite3.connect('x.db')\ndb.execute('create table if not exists t (n)')",
            "the SQLite database",
        ),
    ],
    ids=["thread", "loop", "queue", "udp", "sqlite"],
)
def test_what_a_fork_would_share_or_lose_is_named(tmp_path: Path, source: str, found: str) -> None:
    with launch(tmp_path, f"{source}\nasync def bot(args): ...\n") as launcher:
        launcher.wait_for_log(FALLING_BACK)
        assert found in launcher.log()
        assert launcher.http.post("/bot", json={}, timeout=40).status_code == 200


def test_with_fork_chosen_the_log_warns(tmp_path: Path) -> None:
    bot = "import multiprocessing\nqueue = multiprocessing.Queue()\nasync def bot(args): ...\n"
    with launch(tmp_path, bot, PIPECAT_PROCESS_START="fork") as launcher:
        launcher.wait_for_log("PIPECAT_PROCESS_START=fork: calls share or lose what the bot's import has made (a pipe")
        assert FALLING_BACK not in launcher.log()


def test_what_is_harmless_is_forked(tmp_path: Path) -> None:
    bot = """
import logging, socket, tempfile
from pipecat.audio.vad.silero import SileroVADAnalyzer
import pipecat.services.openai.llm
import pipecat.transports.smallwebrtc.transport
analyzer = SileroVADAnalyzer()
unused = socket.socket()
log = open("bot.log", "a")
async def bot(args):
    print("said yes", flush=True)
"""
    with launch(tmp_path, bot) as launcher:
        assert said_by_two_calls(launcher) == ["yes", "yes"]
        assert FALLING_BACK not in launcher.log()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="this machine lacks gcc")
def test_openmp_that_the_import_has_used_hangs_no_call(tmp_path: Path) -> None:
    (tmp_path / "sum.c").write_text(
        'long sum(void) { long n = 0;\n_Pragma("omp parallel for reduction(+:n) num_threads(4)")\n'
        "for (int i = 0; i < 1000; i++) n += i;\nreturn n; }\n"
    )
    subprocess.run(["gcc", "-fopenmp", "-shared", "-fPIC", "-o", "libsum.so", "sum.c"], cwd=tmp_path, check=True)
    bot = """
import ctypes, pathlib
library = ctypes.CDLL(str(pathlib.Path(__file__).with_name("libsum.so")))
library.sum()
async def bot(args):
    print("said", library.sum(), flush=True)
"""
    with launch(tmp_path, bot) as launcher:
        launcher.wait_for_log("threads, perhaps of OpenMP (libgomp")
        assert said_by_two_calls(launcher) == ["499500", "499500"]


def test_random_generators_of_the_import_draw_other_numbers_in_each_call(tmp_path: Path) -> None:
    bot = """
import random
import numpy
mine, modern, old = random.Random(1), numpy.random.default_rng(1), numpy.random.RandomState(1)
async def bot(args):
    for number in (mine.random(), modern.random(), old.random(), random.random(), numpy.random.random()):
        print("said", number, flush=True)
"""
    with launch(tmp_path, bot) as launcher:
        found = said_by_two_calls(launcher)
        assert len(found) == len(set(found)) == 10
        assert FALLING_BACK not in launcher.log()


SERVE = "http.server.HTTPServer(('127.0.0.1', {port}), http.server.BaseHTTPRequestHandler)"
THREADED = "server = {serve}\nthreading.Thread(target=server.serve_forever, daemon=True).start()"


@pytest.mark.parametrize("where", ["import", "setup"])
def test_a_port_that_only_the_first_process_gets_fails_at_the_start(tmp_path: Path, where: str) -> None:
    port = free_port()
    serve = THREADED.format(serve=SERVE.format(port=port))
    begin = serve if where == "import" else "async def setup():\n    " + serve.replace("\n", "\n    ")
    (tmp_path / "bot.py").write_text(f"import http.server, threading\n{begin}\nasync def bot(args): ...\n")
    with Launcher(tmp_path, wait=False, PIPECAT_ISOLATION="process") as launcher:
        assert launcher.wait(timeout=30) != 0
        assert f"The bot listens on 127.0.0.1:{port} in each process" in launcher.log()
        assert "PIPECAT_METRICS_PORT" in launcher.log()


def test_a_bot_that_does_without_its_port_starts(tmp_path: Path) -> None:
    serve = THREADED.format(serve=SERVE.format(port=free_port())).replace("\n", "\n    ")
    bot = f"import http.server, threading\ntry:\n    {serve}\nexcept OSError:\n    pass\nasync def bot(args): ...\n"
    with launch(tmp_path, bot) as launcher:
        assert launcher.http.post("/bot", json={}, timeout=40).status_code == 200
