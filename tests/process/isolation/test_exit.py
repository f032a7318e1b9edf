"""The end of a process after its call: what outlives the bot, what SDKs have queued, exit handlers."""

from __future__ import annotations

import gzip
import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.launchers import Launcher, in_one_process, until
from tests.support.report_sink import Sink

CUT = "Work that outlived bot() was cut after {} s (PIPECAT_EXIT_GRACE): "
LEFTOVERS = """
import asyncio, concurrent.futures, os, threading, time

pool = concurrent.futures.ThreadPoolExecutor(1)
started = []


def upload(seconds):
    time.sleep(seconds)
    print("done in thread", flush=True)


async def summary(seconds):
    await asyncio.sleep(seconds)
    print("done in task", flush=True)


async def block(seconds):
    await asyncio.sleep(0.3)
    time.sleep(seconds)


async def setup():
    threading.Thread(target=closing.wait, name="of setup").start()
    asyncio.get_running_loop().run_in_executor(None, closing.wait)
    started.append(asyncio.create_task(summary(60)))


async def teardown():
    print("torn down", flush=True)
    closing.set()


async def bot(args):
    print("process", os.getpid(), flush=True)
    loop, seconds = asyncio.get_running_loop(), args.body["seconds"]
    match args.body["leave"]:
        case "task":
            started.append(loop.create_task(summary(seconds)))
        case "thread":
            threading.Thread(target=upload, args=[seconds], name="uploader").start()
        case "job":
            loop.run_in_executor(None, upload, seconds)
        case "jobs":
            pool.submit(upload, seconds)
            pool.submit(upload, seconds)
        case "thread that uses the loop":
            threading.Thread(target=lambda: asyncio.run_coroutine_threadsafe(summary(seconds), loop).result()).start()
        case "block":
            started.append(loop.create_task(block(seconds)))


closing = threading.Event()
"""


def launch(folder: Path, source: str, **variables: Any) -> Launcher:
    (folder / "bot.py").write_text(source)
    return Launcher(
        folder, **{"PIPECAT_ISOLATION": "process", "DRAIN_NOTICE": "0", "PIPECAT_IDLE_PROCESSES": "1", **variables}
    )


def call(launcher: Launcher, leave: str = "", seconds: float = 0.0) -> str:
    """Have a bot leave something behind, and return the session's id."""
    session_id = str(uuid.uuid4())
    response = launcher.post({"leave": leave, "seconds": seconds}, x_daily_session_id=session_id)
    assert response.status_code == 200, response.text
    return session_id


def is_alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def process(launcher: Launcher) -> int:
    """The process of the last call."""
    return int(launcher.lines("process ")[-1].split()[1])


@pytest.mark.parametrize(
    ("leave", "done", "times"),
    [
        ("task", "done in task", 1),
        ("thread", "done in thread", 1),
        ("job", "done in thread", 1),
        ("jobs", "done in thread", 2),
        ("thread that uses the loop", "done in task", 1),
    ],
)
@pytest.mark.parametrize("isolation", ["process", "none"])
def test_work_that_outlives_the_bot_finishes_without_its_slot(
    tmp_path: Path, isolation: str, leave: str, done: str, times: int
) -> None:
    with launch(tmp_path, LEFTOVERS, PIPECAT_ISOLATION=isolation, MAX_SESSIONS="1") as launcher:
        call(launcher, leave, 0.5)
        call(launcher)
        assert done not in launcher.log(), "the slot was free before"
        launcher.wait_for_log(done, times=times)
        assert launcher.stop() == 0
        assert "was cut" not in launcher.log()


@pytest.mark.parametrize(
    ("leave", "named"),
    [
        ("task", "task summary() (bot.py:14 in summary: await asyncio.sleep(seconds))"),
        ("thread", "thread uploader (bot.py:9 in upload: time.sleep(seconds))"),
        ("jobs", "job in thread ThreadPoolExecutor-0_0 (bot.py:9 in upload: time.sleep(seconds))"),
        ("block", "the event loop, which is blocked by bot.py:20 in block: time.sleep(seconds)"),
    ],
)
def test_work_that_does_not_end_is_cut_and_named(tmp_path: Path, leave: str, named: str) -> None:
    with launch(tmp_path, LEFTOVERS, PIPECAT_EXIT_GRACE="0.5") as launcher:
        began = time.monotonic()
        session_id = call(launcher, leave, 60)
        pid = process(launcher)
        until(lambda: not is_alive(pid), "the process has ended")
        assert time.monotonic() - began < 6
        assert [line.split(" - ", 1)[1] for line in launcher.lines("") if "was cut" in line] == [
            CUT.format("0.5") + named
        ]
        assert f"| {session_id} - {CUT.format('0.5')}" in launcher.log()
        assert ("torn down" in launcher.log()) == (leave != "block")


def test_a_launcher_that_stops_waits_for_leftovers_within_the_bound(tmp_path: Path) -> None:
    with launch(tmp_path, LEFTOVERS, PIPECAT_EXIT_GRACE="1") as launcher:
        call(launcher, "task", 0.5)
        call(launcher, "task", 60)
        call(launcher, "thread", 60)
        call(launcher, "block", 60)
        began = time.monotonic()
        assert launcher.stop() == 0
        assert time.monotonic() - began < 6
        assert launcher.log().count("done in task") == 1
        assert launcher.log().count(CUT.format("1")) == 3


@in_one_process
def test_in_one_process_tasks_have_the_same_bound_when_it_stops(tmp_path: Path) -> None:
    bot = LEFTOVERS.replace("async def setup", "async def unused")
    with launch(tmp_path, bot, PIPECAT_ISOLATION="none", PIPECAT_EXIT_GRACE="1") as launcher:
        call(launcher, "task", 0.5)
        session_id = call(launcher, "task", 60)
        began = time.monotonic()
        assert launcher.stop() == 0
        assert time.monotonic() - began < 5
        assert launcher.log().count("done in task") == 1
        assert f"| {session_id} - {CUT.format('1')}task summary()" in launcher.log()


def test_without_a_grace_nothing_is_waited_for(tmp_path: Path) -> None:
    with launch(tmp_path, LEFTOVERS, PIPECAT_EXIT_GRACE="0") as launcher:
        call(launcher, "task", 0.5)
        assert launcher.stop() == 0
        assert CUT.format("0") in launcher.log()
        assert "done" not in launcher.log()


SENTRY = """
import sentry_sdk

sentry_sdk.init(dsn="http://key@127.0.0.1:{port}/1", traces_sample_rate=1.0{options})


async def bot(args):
    raise ValueError(f"call {{args.body['number']}}")
"""


def errors_in(envelopes: Sink) -> list[str]:
    return sorted(_errors(envelopes))


def _errors(envelopes: Sink) -> Iterator[str]:
    for _, headers, body in tuple(envelopes.posts):
        text = gzip.decompress(body) if headers.get("content-encoding") == "gzip" else body
        for item in map(json.loads, text.splitlines()):
            if "exception" in item:
                yield item["exception"]["values"][-1]["value"]


def test_sentry_loses_no_error_of_a_failed_call(tmp_path: Path) -> None:
    with Sink() as sentry:
        sentry.delay = 0.3
        bot = SENTRY.format(port=sentry.port, options="")
        with launch(tmp_path, bot) as launcher:
            for number in range(6):
                assert launcher.post({"number": number}).status_code == 500
            until(lambda: len(errors_in(sentry)) == 6, "six errors")
            assert errors_in(sentry) == [f"call {number}" for number in range(6)]
            assert launcher.stop() == 0
            assert "was cut" not in launcher.log()


def test_sentry_that_answers_late_is_waited_for_within_the_bound(tmp_path: Path) -> None:
    with Sink(status=None) as sentry:
        bot = SENTRY.format(port=sentry.port, options=", shutdown_timeout=60")
        with launch(tmp_path, bot, PIPECAT_EXIT_GRACE="1") as launcher:
            assert launcher.post({"number": 0}).status_code == 500
            began = time.monotonic()
            assert launcher.stop() == 0
            assert time.monotonic() - began < 6
            assert "Exit handlers were cut after 1.0 s (PIPECAT_EXIT_GRACE)" in launcher.log()


QUEUED = """
import json, urllib.request
from loguru import logger
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
import time


class Exporter(SpanExporter):
    def export(self, spans):
        print("exported", *(span.name for span in spans), flush=True)
        return SpanExportResult.SUCCESS


def deliver(message):
    time.sleep(0.3)
    print("delivered", message, end="", flush=True)


async def setup():
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=60_000))
    trace.set_tracer_provider(provider)
    logger.add(deliver, enqueue=True, format="{message}", filter=lambda record: "kept" in record["message"])


async def bot(args):
    with trace.get_tracer("bot").start_as_current_span("turn"):
        logger.info("kept 1")
        logger.info("kept 2")
"""


def test_queues_of_loguru_and_opentelemetry_are_delivered(tmp_path: Path) -> None:
    with launch(tmp_path, QUEUED) as launcher:
        assert launcher.post({}).status_code == 200
        launcher.wait_for_log("delivered kept 2")
        launcher.wait_for_log("exported turn")


def test_an_sdk_that_does_not_deliver_is_named(tmp_path: Path) -> None:
    bot = QUEUED.replace("time.sleep(0.3)", "time.sleep(60)")
    with launch(tmp_path, bot, PIPECAT_EXIT_GRACE="1") as launcher:
        assert launcher.post({}).status_code == 200
        launcher.wait_for_log("loguru: not flushed when the process ended (PIPECAT_EXIT_GRACE)")
        launcher.wait_for_log("exported turn")


HANDLERS = """
import atexit, contextlib, functools, os, shutil, subprocess, tempfile

folder = tempfile.mkdtemp()
other_folder = tempfile.mkdtemp()
files = [tempfile.mkstemp()[1] for _ in range(2)]
helper = subprocess.Popen(["sleep", "600"])


def flush():
    print("flushed in", os.getpid(), flush=True)


def delete_files():
    shutil.rmtree(folder)
    print("deleted", flush=True)


def forgotten():
    print("forgotten", flush=True)


class Array:
    def __bool__(self):
        raise ValueError("the truth of an array is ambiguous")


array = Array()


def save():
    print("saved", array, flush=True)


class Deletion:
    def __call__(self):
        os.system(f"rm -r {other_folder}")


stack = contextlib.ExitStack()
stack.callback(print, "closed", flush=True)
atexit.register(flush)
atexit.register(delete_files)
atexit.register(Deletion())
atexit.register(save)
atexit.register(os.remove, files[0])
atexit.register(functools.partial(os.remove, files[1]))
atexit.register(stack.close)
atexit.register(helper.terminate)
atexit.register(forgotten)
atexit.unregister(forgotten)


async def bot(args):
    assert os.path.isdir(folder) and os.path.isdir(other_folder) and all(map(os.path.isfile, files))
    assert os.path.isdir(f"/proc/{helper.pid}")
    print("process", os.getpid(), flush=True)
"""


def test_exit_handlers_of_the_import_run_after_each_call_unless_they_end_what_calls_share(tmp_path: Path) -> None:
    with launch(tmp_path, HANDLERS) as launcher:
        for _ in range(3):
            assert launcher.post({}).status_code == 200
            launcher.wait_for_log(f"flushed in {process(launcher)}\n")
        assert "PIPECAT_PROCESS_START" not in launcher.log(), "processes are forked"
        assert launcher.log().count("saved") == 3
        assert "deleted" not in launcher.log()
        assert "closed" not in launcher.log()
        assert "Runs once at the end, not after each call: the exit handler bot.py:14" in launcher.log()
        assert launcher.stop() == 0
        assert launcher.log().count("deleted") == launcher.log().count("closed") == 1
        assert "forgotten" not in launcher.log()


def test_an_exit_handler_that_hangs_is_cut_and_named(tmp_path: Path) -> None:
    bot = (
        "import atexit, threading\n\n\n@atexit.register\ndef hang():\n    threading.Event().wait()\n\n\n"
        "async def bot(args): ...\n"
    )
    with launch(tmp_path, bot, PIPECAT_EXIT_GRACE="1") as launcher:
        assert launcher.post({}).status_code == 200
        launcher.wait_for_log(
            "Exit handlers were cut after 1.0 s (PIPECAT_EXIT_GRACE): bot.py:6 in hang: threading.Event()"
        )
