"""``bot.jsonl``: what the process says, log lines and printed ones, as JSON lines."""

from __future__ import annotations

import datetime
import errno
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from pipecat_base.logs.jsonl.capture import TEE_KILLED
from pipecat_base.logs.jsonl.records import Records, json_line
from pipecat_base.logs.jsonl.session import LINGER_SECONDS, CurrentSession
from pipecat_base.logs.jsonl.tee import MAX_LINE_BYTES, LineSplitter
from tests.support.launchers import Launcher, environment, free_port, until

BOT = """
import asyncio, ctypes, os, subprocess, sys

from loguru import logger

print("printed at import")
os.write(2, b"written at import\\n")


def act(do, args):
    if do == "print":
        print(f"printed by {args.session_id}")
    elif do == "c":
        libc = ctypes.CDLL(None)
        libc.puts(b"put by C")
        libc.fflush(None)
    elif do == "child":
        subprocess.run(["sh", "-c", "echo echoed by a child; echo and to stderr >&2"], check=True)
    elif do == "log":
        logger.info("logged once")
    elif do == "raise":
        raise ValueError("raised here")
    elif do == "sinks":
        logger.remove()
        logger.add(sys.stderr)
        logger.info("logged by a sink of the bot's")
    elif do == "exit":
        logger.info("logged last")
        print("printed last")
        os._exit(3)
    elif do == "crash":
        print("printed before the crash")
        os.kill(os.getpid(), 11)
    elif do == "bytes":
        os.write(1, bytes(args.body["bytes"]))


async def bot(args):
    for do in args.body["do"]:
        act(do, args)
    await asyncio.sleep(args.body.get("seconds", 0))
"""
KEYS = {
    "app": ["@timestamp", "stream", "level", "session_id", "line"],
    "stdout": ["@timestamp", "stream", "session_id", "line"],
    "stderr": ["@timestamp", "stream", "session_id", "line"],
}


class Scene:
    """A launcher whose bot.jsonl is in a folder of the test's."""

    def __init__(self, folder: Path, bot: str = BOT, **variables: Any) -> None:
        (folder / "bot.py").write_text(textwrap.dedent(bot))
        self.file = folder / "logs" / "deep" / "bot.jsonl"
        self.launcher = Launcher(
            folder, PCC_LOG_DIR=str(self.file.parent), DRAIN_NOTICE="0", PYTHONUNBUFFERED=None, **variables
        )

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *error: Any) -> None:
        self.launcher.__exit__(*error)

    def run(self, *do: str, session_id: str = "s-1", **body: Any) -> None:
        self.launcher.post({"do": do, **body}, x_daily_session_id=session_id)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.file.read_text().splitlines()]

    def find(self, line: str) -> dict[str, Any]:
        """The only record of this line."""
        found = until(lambda: [r for r in self.records() if r["line"] == line], f"the record of {line!r}")
        assert len(found) == 1, found
        record: dict[str, Any] = found[0]
        return record


def test_what_is_logged_and_what_is_printed_is_there_once_with_its_session(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.run("print", "c", "child", "log")
        for line, stream in (
            ("printed by s-1", "stdout"),
            ("put by C", "stdout"),
            ("echoed by a child", "stdout"),
            ("and to stderr", "stderr"),
            ("logged once", "app"),
        ):
            found = scene.find(line)
            assert list(found) == KEYS[stream]
            assert (found["stream"], found["session_id"]) == (stream, "s-1")
        assert scene.find("logged once")["level"] == "INFO"
        for line, stream in (("printed at import", "stdout"), ("written at import", "stderr")):
            assert list(scene.find(line)) == ["@timestamp", "stream", "line"]
            assert scene.find(line)["stream"] == stream
        ready = next(r for r in scene.records() if r["line"].startswith("Ready: "))
        assert list(ready) == ["@timestamp", "stream", "level", "line"]
        for found in scene.records():
            assert datetime.datetime.fromisoformat(found["@timestamp"]).tzinfo is not None
        # On the console all of it is as without bot.jsonl.
        for line in ("printed by s-1", "put by C", "echoed by a child", "and to stderr", "printed at import"):
            scene.launcher.wait_for_log(line)
        assert scene.launcher.log().count("logged once") == 1


def test_a_traceback_is_in_its_record(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.run("raise")
        (failed,) = [r for r in scene.records() if "raised here" in r["line"]]
        assert failed["level"] == "ERROR"
        assert "Traceback (most recent call last)" in failed["line"]


def test_a_sink_that_the_bot_adds_in_a_session_neither_ends_nor_doubles_it(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        scene.run("sinks", "log")
        assert scene.find("logged by a sink of the bot's")["stream"] == "app"
        assert scene.find("logged once")["stream"] == "app"
        assert scene.launcher.stop() == 0
        assert [r for r in scene.records() if "logged once" in r["line"]] == [scene.find("logged once")]


def test_a_logger_that_is_bound_neither_ends_nor_doubles_it(tmp_path: Path) -> None:
    bot = """
    import sys

    from loguru import logger


    async def bot(args):
        bound = logger.bind(x=1)
        bound.remove()
        bound.add(sys.stderr)
        bound.info("logged by a bound one")
        logger.info("logged once")
    """
    with Scene(tmp_path, bot) as scene:
        scene.run()
        for line in ("logged by a bound one", "logged once"):
            assert scene.find(line)["stream"] == "app"
        assert scene.launcher.stop() == 0
        assert len([r for r in scene.records() if "logged once" in r["line"]]) == 1


def test_an_output_that_nobody_reads_does_not_hold_up_the_forced_end(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(
        "import os, threading\n\n\ndef fill():\n    while True:\n        os.write(2, b'x' * 10_000)\n\n\n"
        "async def bot(args):\n    threading.Thread(target=fill, daemon=True).start()\n"
        "    while True:\n        print('x' * 10_000)\n"
    )
    variables = {"PCC_LOG_DIR": str(tmp_path), "SHUTDOWN_TIMEOUT": "0", "SESSION_CANCEL_GRACE": "0.1"}
    port = str(free_port())
    process = subprocess.Popen(
        [sys.executable, "-m", "pipecat_base"],
        cwd=tmp_path,
        env=environment(PORT=port, TEARDOWN_TIMEOUT="0.1", DRAIN_NOTICE="0", **variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

            def ready() -> bool:
                try:
                    return http.get("/readyz").status_code == 200
                except httpx.TransportError:
                    return False

            until(ready, "ready")
            with pytest.raises(httpx.TimeoutException):
                http.post("/bot", timeout=1)  # by now the loop is stuck in a write
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 70
    finally:
        process.kill()
        process.communicate()


def test_a_console_that_nobody_reads_any_more_is_no_noise_in_it(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("async def bot(args):\n    print('printed')\n")
    port = str(free_port())
    command = f"{sys.executable} -m pipecat_base 2>&1 | head -n 1"
    variables = environment(PORT=port, PCC_LOG_DIR=str(tmp_path), DRAIN_NOTICE="0")
    with subprocess.Popen(["sh", "-c", command], cwd=tmp_path, env=variables, start_new_session=True) as shell:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
                until(
                    lambda: (tmp_path / "bot.jsonl").exists() and "Ready: " in (tmp_path / "bot.jsonl").read_text(),
                    "ready",
                )
                for _ in range(3):
                    assert http.post("/bot").status_code == 200
        finally:
            os.killpg(shell.pid, signal.SIGTERM)

    def written() -> list[dict[str, str]]:
        return [json.loads(line) for line in (tmp_path / "bot.jsonl").read_text().splitlines()]

    # The shell, which is waited for, ends before the launcher does.
    until(lambda: any("Stopped" in r["line"] for r in written()), "the launcher's end")
    until(lambda: len([r for r in written() if r["stream"] == "stdout"]) == 3, "what was printed")
    assert {r["line"] for r in written() if r["stream"] == "stdout"} == {"printed"}
    assert [r for r in written() if r["stream"] == "stderr"] == []


def test_it_works_where_children_are_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("print('printed at import')\n\n\nasync def bot(args): ...\n")
    ignore = [
        sys.executable,
        "-c",
        "import os, signal, sys; signal.signal(17, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])",
    ]
    with Launcher(tmp_path, prefix=ignore, PCC_LOG_DIR=str(tmp_path), DRAIN_NOTICE="0") as launcher:
        assert launcher.post({}).status_code == 200
        assert launcher.stop() == 0
        assert not launcher.lines("cannot be used")
    records = [json.loads(line) for line in (tmp_path / "bot.jsonl").read_text().splitlines()]
    assert {r["stream"] for r in records} == {"app", "stdout"}


@pytest.mark.parametrize("do", ["exit", "crash"])
def test_the_last_words_of_a_process_that_dies_are_there(tmp_path: Path, do: str) -> None:
    last = {"exit": "printed last", "crash": "printed before the crash"}[do]
    with Scene(tmp_path) as scene:
        with pytest.raises(Exception, match=r"disconnected|reset|closed"):
            scene.run(do)
        assert scene.launcher.wait() == {"exit": 3, "crash": -11}[do]
        assert scene.find(last)["session_id"] == "s-1"
        scene.launcher.wait_for_log(last)
        if do == "exit":
            assert scene.find("logged last")["session_id"] == "s-1"


def test_bytes_pass_through_unchanged_and_become_lines(tmp_path: Path) -> None:
    content = b"\xff\xfe caf\xc3\xa9\r\nno end, " + b"x" * 20_000 + b"\n\n\x00last"
    with Scene(tmp_path) as scene:
        scene.run("bytes", bytes=list(content))
        until(lambda: content in Path(scene.launcher._output.name).read_bytes(), "the bytes")
        assert scene.launcher.stop() == 0
        lines = [r["line"] for r in scene.records() if r["stream"] == "stdout"]
        assert "\ufffd\ufffd café" in lines
        assert f"no end, {'x' * (MAX_LINE_BYTES - 8)} ...[truncated]" in lines
        assert lines[-1] == "\x00last"


def test_what_comes_a_moment_after_a_session_is_its_own_and_what_comes_later_nobodys(tmp_path: Path) -> None:
    bot = f"""
    import asyncio


    async def bot(args):
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, print, "soon after")
        loop.call_later({LINGER_SECONDS} + 0.3, print, "long after", args.session_id)
    """
    with Scene(tmp_path, bot, PCC_RELEASE_SESSION_MEMORY="false") as scene:
        for number in range(3):
            scene.run(session_id=f"s-{number}")
            assert "session_id" not in scene.find(f"long after s-{number}")
        assert scene.launcher.stop() == 0
        # A machine that is busy may read one of them late.
        assert [r for r in scene.records() if r["line"] == "soon after" and r.get("session_id", "").startswith("s-")]


def test_while_two_sessions_run_printed_lines_are_nobodys(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        other = threading.Thread(target=scene.run, kwargs={"session_id": "s-2", "seconds": 1})
        other.start()
        scene.launcher.wait_for_log("| s-2 - Session started")
        scene.run("print", "log")
        assert "session_id" not in scene.find("printed by s-1")
        assert scene.find("logged once")["session_id"] == "s-1"
        other.join()


def test_what_is_printed_at_the_end_is_captured_too(tmp_path: Path) -> None:
    bot = """
    import atexit


    atexit.register(print, "printed at exit")


    async def bot(args): ...
    """
    with Scene(tmp_path, bot) as scene:
        assert scene.launcher.stop() == 0
        assert scene.find("printed at exit")["stream"] == "stdout"


def test_a_tee_process_that_is_killed_takes_nothing_with_it(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        (tee,) = [pid for pid in _same_command(scene.launcher.process.pid) if pid != scene.launcher.process.pid]
        os.kill(tee, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{tee}").exists(), "the end of the tee process")
        time.sleep(0.1)
        scene.run("print", "log")
        scene.launcher.wait_for_log("printed by s-1")
        assert scene.find("logged once")["session_id"] == "s-1"
        assert scene.find(TEE_KILLED)["level"] == "WARNING"
        assert scene.launcher.lines(TEE_KILLED) == [TEE_KILLED]
        assert scene.launcher.stop() == 0


def test_what_the_bot_has_led_elsewhere_is_left_there(tmp_path: Path) -> None:
    bot = """
    import asyncio, os


    async def bot(args):
        file = os.open("elsewhere.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.write(1, b"early\\n")
        await asyncio.sleep(0.5)  # by now nobody can print through the tee process any more
        os.write(1, b"later\\n")
    """
    with Scene(tmp_path, bot) as scene:
        scene.run()
        assert (tmp_path / "elsewhere.txt").read_text() == "early\nlater\n"
        assert scene.launcher.stop() == 0
        assert (tmp_path / "elsewhere.txt").read_text() == "early\nlater\n"


def _same_command(pid: int) -> list[int]:
    """The processes with its working directory and command line: what it has forked."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            same = (
                entry.name.isdigit() and (entry / "cmdline").read_bytes() == Path(f"/proc/{pid}/cmdline").read_bytes()
            )
            if same and os.readlink(entry / "cwd") == os.readlink(f"/proc/{pid}/cwd"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def test_nothing_of_it_is_left_when_the_process_has_ended(tmp_path: Path) -> None:
    with Scene(tmp_path) as scene:
        pid = scene.launcher.process.pid
        tees = [other for other in _same_command(pid) if other != pid]
        assert len(tees) == 1
        assert scene.launcher.stop() == 0
        until(lambda: not Path(f"/proc/{tees[0]}").exists(), "the end of the tee process")


def test_a_folder_that_cannot_be_made_is_one_line_and_no_lane(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with Launcher("obedient", PCC_LOG_DIR=str(tmp_path / "file" / "logs")) as launcher:
        (line,) = launcher.lines("PCC_LOG_DIR")
        assert line == (
            f"pipecat-base: PCC_LOG_DIR: '{tmp_path}/file/logs' cannot be used (Not a directory);"
            " no bot.jsonl is written"
        )
        assert launcher.post({}).status_code == 200


def test_the_level_is_for_log_lines_alone(tmp_path: Path) -> None:
    with Scene(tmp_path, PIPECAT_LOG_LEVEL="ERROR") as scene:
        scene.run("print", "log")
        scene.find("printed by s-1")
        assert not [r for r in scene.records() if r["line"] == "logged once"]


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())}


def test_no_other_user_reads_the_log_also_after_a_rotation(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "logs"
    records = Records(str(folder), max_bytes=100)
    for number in range(3):
        records.append(json_line("app", f"{number} {'x' * 50}"))
    assert modes(folder) == {"logs": 0o700, "bot.jsonl": 0o600, "bot.jsonl.1": 0o600}
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_no_other_user_reads_what_a_launcher_writes_of_its_calls(tmp_path: Path) -> None:
    logs, reports = tmp_path / "logs", tmp_path / "reports"
    with Launcher("obedient", PCC_LOG_DIR=str(logs), PIPECAT_REPORTS_DIR=str(reports)) as launcher:
        assert launcher.post({}).status_code == 200
        until((reports / "calls.jsonl").exists, "the call's report")
        found = {**modes(logs), **modes(reports)}
    assert {found.pop("logs"), found.pop("reports")} == {0o700}
    assert {"bot.jsonl", "calls.jsonl"} <= found.keys()
    assert set(found.values()) == {0o600}


@pytest.mark.parametrize(
    ("of_folder", "of_file"),
    [
        (0o700, 0o600),
        (0o755, 0o600),
        (0o1777, 0o600),  # /tmp
        (0o777, 0o644),  # a volume that containers share
        (0o2777, 0o644),
        (0o2770, 0o640),  # the same with a group of its own
        (0o770, 0o600),  # whose file is our group's, not the folder's
    ],
)
def test_a_log_shipper_reads_the_log_on_a_volume_that_it_shares(tmp_path: Path, of_folder: int, of_file: int) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    folder.chmod(of_folder)
    records = Records(str(folder), max_bytes=100)
    for number in range(3):
        records.append(json_line("app", f"{number} {'x' * 50}"))
    assert modes(folder) == {"logs": of_folder, "bot.jsonl": of_file, "bot.jsonl.1": of_file}


def test_the_file_is_rotated_and_one_old_one_is_kept(tmp_path: Path) -> None:
    records = Records(str(tmp_path), max_bytes=1000)
    other = Records(str(tmp_path), max_bytes=1000)
    for number in range(100):
        (records, other)[number % 2].append(json_line("app", f"{number:03} {'x' * 40}", level="INFO"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bot.jsonl", "bot.jsonl.1"]
    kept = [
        json.loads(line)["line"][:3]
        for name in ("bot.jsonl.1", "bot.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert kept == [f"{number:03}" for number in range(100 - len(kept), 100)]
    assert all((tmp_path / name).stat().st_size <= 1000 for name in ("bot.jsonl", "bot.jsonl.1"))


def test_processes_that_were_forked_rotate_without_losing_a_line_of_the_last_two_files(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pipecat_base.logs.jsonl.records import Records, json_line\n"
        "records = Records(sys.argv[1], max_bytes=200_000)\n"
        "children = []\n"
        "for name in 'ab':\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        for number in range(3000): records.append(json_line('app', f'{name} {number}', level='INFO'))\n"
        "        os._exit(0)\n"
        "    children.append(child)\n"
        "assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    lines = [
        json.loads(line)["line"].split()
        for name in ("bot.jsonl.1", "bot.jsonl")
        for line in (tmp_path / name).read_text().splitlines()
    ]
    assert (tmp_path / "bot.jsonl.1").stat().st_size > 190_000
    for name in "ab":
        numbers = [int(number) for writer, number in lines if writer == name]
        assert numbers == sorted(numbers)
        assert len(numbers) < 2 or numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_a_lock_holds_between_processes_that_share_a_descriptor(tmp_path: Path) -> None:
    """Both find the file full; the second must not put the new one in place of the old."""
    code = (
        "import os, sys, time; from pipecat_base.logs.jsonl import records as module\n"
        "replace = os.replace\n"
        "os.replace = lambda *paths: (time.sleep(0.3), replace(*paths))\n"
        "records = module.Records(sys.argv[1], max_bytes=1000)\n"
        "for number in range(4): records.append(f'old {number} ' + 'x' * 200)\n"
        "child = os.fork()\n"
        "records.append(('child ' if child == 0 else 'parent ') + 'y' * 200)\n"
        "if child == 0: os._exit(0)\n"
        "os.waitpid(child, 0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert (tmp_path / "bot.jsonl.1").read_text().count("old ") == 4
    said = (tmp_path / "bot.jsonl").read_text()
    assert ("child " in said, "parent " in said) == (True, True)


def test_a_file_that_a_shipper_has_moved_is_begun_again(tmp_path: Path) -> None:
    records = Records(str(tmp_path))
    records.append("first")
    (tmp_path / "bot.jsonl").rename(tmp_path / "shipped")
    records.append("second")
    assert (tmp_path / "bot.jsonl").read_text() == "second\n"


def test_a_full_disk_costs_one_complaint(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    records = Records(str(tmp_path))
    (tmp_path / "bot.jsonl").unlink()
    (tmp_path / "bot.jsonl").symlink_to("/dev/full")
    for _ in range(3):
        records.append("lost")
    (tmp_path / "bot.jsonl").unlink()
    records.append("kept")
    complaint = f"pipecat-base: PCC_LOG_DIR: {tmp_path}/bot.jsonl cannot be written: No space left on device\n"
    assert capfd.readouterr().err == complaint
    assert (tmp_path / "bot.jsonl").read_text() == "kept\n"


def test_a_disk_on_which_some_lines_fit_costs_one_complaint_too(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = Records(str(tmp_path))
    turns = iter(range(100))

    def write(descriptor: int, content: bytes) -> int:
        if descriptor == records.descriptor and next(turns) % 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_really(descriptor, content)

    write_really = os.write
    monkeypatch.setattr(os, "write", write)
    for number in range(50):
        records.append(str(number))
    assert capfd.readouterr().err.count("cannot be written") == 1


def test_no_reader_takes_a_line_for_two() -> None:
    line = json_line("app", "one\x85two\u2028three\u2029four\nfive", level="INFO")
    assert len(line.splitlines()) == 1
    assert json.loads(line)["line"] == "one\x85two\u2028three\u2029four\nfive"


def test_what_is_no_json_is_a_record_of_its_own() -> None:
    level: Any = object()
    found = json.loads(json_line("app", "line", level=level, session_id="s"))
    assert (found["level"], found["line"]) == ("ERROR", "<pcc_structured_logs: serialization failed>")
    assert found["session_id"] == "s"
    found = json.loads(json_line("app", "line", level=level, is_console=True))
    assert (found["severity"], found["message"]) == (found["level"], found["line"])


def test_lines_come_out_however_they_come_in() -> None:
    content = b"one\r\ntwo\n\n" + b"y" * 40_000 + b"\nfour"
    for size in (1, 7, 4096, len(content)):
        lines = LineSplitter()
        found = [line for at in range(0, len(content), size) for line in lines.feed(content[at : at + size])]
        found += lines.rest()
        assert found[:3] == ["one", "two", ""]
        assert found[3] == "y" * MAX_LINE_BYTES + " ...[truncated]"
        assert found[4:] == ["four"]


def test_a_slot_whose_writer_has_died_is_not_waited_for() -> None:
    current = CurrentSession()
    current.begin("a")
    current._memory[0:4] = (7).to_bytes(4, "little")  # odd: being written
    assert current.read() is None


def test_the_one_that_speaks() -> None:
    now = 100.0
    current = CurrentSession(lambda: now)
    assert current.read() is None
    current.begin("a")
    assert current.read() == "a"
    current.begin("b")
    assert current.read() is None
    current.end("a")
    assert current.read() is None  # what a has printed may still be on its way
    now += LINGER_SECONDS
    assert current.read() == "b"
    current.end("b")
    assert current.read() == "b"
    now += LINGER_SECONDS + 0.01
    assert current.read() is None
    current.begin("c" * 256)
    assert current.read() == "c" * 256


def test_a_session_that_begins_takes_over_at_once() -> None:
    current = CurrentSession(lambda: 100.0)
    current.begin("a")
    current.end("a")
    current.begin("b")
    assert current.read() == "b"
