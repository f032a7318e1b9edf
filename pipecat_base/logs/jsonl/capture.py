"""Captures standard output and error, in the process that prints: starts the tee process and ends it."""

from __future__ import annotations

import atexit
import contextlib
import datetime
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn, TextIO

from pipecat_base.logs.jsonl.records import Records, json_line
from pipecat_base.logs.jsonl.session import CurrentSession
from pipecat_base.logs.jsonl.tee import TeeStream, copy_output
from pipecat_base.logs.streams import flush_streams, write_line

# The tee process finishes writing within these; child processes of the bot may keep it running for longer.
CLOSE_TIMEOUT_SECONDS = 1.0
OS_EXIT_TIMEOUT_SECONDS = 0.25
TEE_KILLED = "Printed output is no longer captured in bot.jsonl: the capture process was killed"
NAMES = {1: "stdout", 2: "stderr"}


class OutputCapture:
    """Forks, so open it before any thread is started. With ``as_json``, the console gets JSON lines too."""

    def __init__(self, records: Records | None, *, as_json: bool = False) -> None:
        self.records = records
        self.as_json = as_json
        self._session = CurrentSession()
        self._process = os.getpid()
        self._saved = {descriptor: os.dup(descriptor) for descriptor in NAMES}
        self._originals: dict[int, TextIO] = {
            descriptor: io.TextIOWrapper(
                io.FileIO(saved, "wb", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
            )
            for descriptor, saved in self._saved.items()
        }
        self._pipes: dict[int, os.stat_result] = {}
        self._tee_alive = self._start()
        for stream in (sys.stdout, sys.stderr):
            # Pipes are block-buffered otherwise: output would be late, in the wrong session, or lost at os._exit.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        # Registered first, so called last: output of the bot's own exit handlers is captured too.
        atexit.register(self.close)
        self._detach_before_os_exit()
        threading.Thread(target=self._watch_tee, name="bot.jsonl", daemon=True).start()

    @classmethod
    def open(cls, folder: str | None, *, as_json: bool = False) -> OutputCapture | None:
        try:
            return cls(None if folder is None else Records(folder), as_json=as_json)
        except OSError as error:
            print(
                f"pipecat-base: PCC_LOG_DIR: {folder!r} cannot be used ({error.strerror or error});"
                " no bot.jsonl is written",
                file=sys.stderr,
                flush=True,
            )
            return cls(None, as_json=True) if as_json and folder is not None else None

    def original(self, stream: object) -> TextIO:
        """The uncaptured standard output or error, for log lines that are written to bot.jsonl separately."""
        return self._originals[1 if stream in (sys.stdout, sys.__stdout__) else 2]

    @contextlib.contextmanager
    def of_session(self, session_id: str) -> Iterator[None]:
        if os.getpid() != self._process:  # the launcher does it for its workers
            yield
            return
        self._session.begin(session_id)
        try:
            yield
        finally:
            self._session.end(session_id)

    def log_line(
        self, message: str, *, level: str, session_id: str | None, at: datetime.datetime, is_console: bool
    ) -> str:
        return json_line("app", message, level=level, session_id=session_id, at=at, is_console=is_console)

    def append(self, level: str, message: str) -> None:
        """Write one log line. Safe in a signal handler, and just before ``os._exit``."""
        if self.records is not None:
            self.records.append(json_line("app", message, level=level))

    def print(self, text: str) -> None:
        """Like :meth:`append`, to the uncaptured standard error."""
        write_line(self._saved[2], json_line("app", text, level="WARNING", is_console=True) if self.as_json else text)

    def close(self) -> None:
        """Restore the streams, and wait until the tee process has written everything."""
        if os.getpid() == self._process:
            flush_streams()
            self._detach(CLOSE_TIMEOUT_SECONDS)

    def _detach(self, timeout: float) -> None:
        if self._tee_alive is None:
            return
        self._restore()
        poll = select.poll()
        poll.register(self._tee_alive, select.POLLIN)
        poll.poll(timeout * 1000)
        self._tee_alive = None

    def _detach_before_os_exit(self) -> None:
        # A container kills the tee process together with this one.
        exit_now = os._exit

        def detach_and_exit(status: int) -> NoReturn:
            # No flush: a thread that is stuck in a write holds the stream's lock.
            if os.getpid() == self._process:
                self._detach(OS_EXIT_TIMEOUT_SECONDS)
            exit_now(status)

        os._exit = detach_and_exit

    def _start(self) -> int | None:
        """Fork the tee process. The descriptor is readable once that process has ended."""
        flush_streams()
        pipes = {descriptor: os.pipe() for descriptor in NAMES}
        alive, held = os.pipe()
        try:
            child = os.fork()
        except OSError:
            for descriptor in (alive, held, *(end for ends in pipes.values() for end in ends)):
                os.close(descriptor)
            raise
        if child == 0:
            # Forked twice, so that a bot that waits for its children does not wait for the tee process.
            with contextlib.suppress(OSError):
                os.setsid()
                if os.fork() == 0:
                    self._run_tee({descriptor: reader for descriptor, (reader, _) in pipes.items()}, held)
            os._exit(0)
        os.close(held)
        for descriptor, (reader, writer) in pipes.items():
            os.close(reader)
            self._pipes[descriptor] = os.fstat(writer)
            os.dup2(writer, descriptor)
            os.close(writer)
        with contextlib.suppress(ChildProcessError):  # the parent process may have had SIGCHLD ignored
            os.waitpid(child, 0)
        return alive

    def _run_tee(self, sources: dict[int, int], held: int) -> NoReturn:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when every writer has closed its end
        files = set() if self.records is None else {self.records.descriptor}
        kept = sorted({0, 1, 2, held, *files, *sources.values()})
        for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(before + 1, after)
        with contextlib.suppress(Exception):
            streams = [TeeStream(NAMES[d], source, d) for d, source in sources.items()]
            copy_output(streams, self.records, self._session, as_json=self.as_json)
        os._exit(0)

    def _watch_tee(self) -> None:
        """Print without the tee process if it ends first: every line would fail otherwise."""
        alive = self._tee_alive
        if alive is None:
            return
        os.read(alive, 1)
        if self._tee_alive is not None and self._restore():
            self.print(TEE_KILLED)
            self.append("WARNING", TEE_KILLED)

    def _restore(self) -> bool:
        """Restore standard output and error unless the bot has redirected them; returns whether any was restored."""
        restored = False
        for descriptor, saved in self._saved.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), self._pipes[descriptor]):
                    os.dup2(saved, descriptor)
                    restored = True
        return restored
