"""Puts the pump between the process and its standard output and error, and takes it out again."""

from __future__ import annotations

import atexit
import contextlib
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn, TextIO

from pipecat_base.logs.jsonl.records import Records, record
from pipecat_base.logs.jsonl.session import CurrentSession
from pipecat_base.logs.jsonl.tee import TeeStream, pump
from pipecat_base.logs.streams import flush_streams, write_line

PUMP_TIMEOUT = 1.0
"""Seconds that the pump gets to write what is left. Children of the bot's may keep it going for longer."""
LAST_PUMP_TIMEOUT = 0.25
"""As above, for an end that somebody wants at once."""
PUMP_ENDED = "What is printed is no longer in bot.jsonl: the process that it passes through was killed"
NAMES = {1: "stdout", 2: "stderr"}


class OutputCapture:
    """Owns ``bot.jsonl`` and the capture of what is printed. Open it before any thread is started.

    Attributes:
        records: Where log lines are written; None without a folder for them.
        as_json: Whether what is printed goes on as JSON lines.
    """

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
        self._alive = self._start()
        for stream in (sys.stdout, sys.stderr):
            # A pipe would be written to in blocks: late, to whichever session runs then, and never after os._exit.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True)
        # The first to be registered is the last to be called: what the bot prints at its exit is captured too.
        atexit.register(self.close)
        self._close_before_exits()
        threading.Thread(target=self._watch, name="lane", daemon=True).start()

    @classmethod
    def open(cls, folder: str | None, *, as_json: bool = False) -> OutputCapture | None:
        """The lane in ``folder``; when nothing can be written there, one line on standard error, and no file.

        None where it would have nothing to do then.
        """
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
        """What leads where standard output or error led before: a log line need not come a second time, as printed."""
        return self._originals[1 if stream in (sys.stdout, sys.__stdout__) else 2]

    @contextlib.contextmanager
    def of_session(self, session_id: str) -> Iterator[None]:
        """Around a session's bot: what is printed meanwhile, and a moment longer, is the session's."""
        if os.getpid() != self._process:  # the launcher says whose words a worker's are
            yield
            return
        self._session.begin(session_id)
        try:
            yield
        finally:
            self._session.end(session_id)

    def say(self, level: str, message: str) -> None:
        """Write one log line that comes from no logger. Safe in a signal handler, and just before ``os._exit``."""
        if self.records is not None:
            self.records.append(record("app", message, level=level))

    def print(self, text: str) -> None:
        """Write a line to where standard error led before; as safe."""
        write_line(self._saved[2], record("app", text, level="WARNING") if self.as_json else text)

    def close(self) -> None:
        """Take the pump out, and wait until it has written what was printed."""
        if os.getpid() == self._process:
            flush_streams()
            self._take_out(PUMP_TIMEOUT)

    def _take_out(self, timeout: float) -> None:
        if self._alive is None:
            return
        self._restore()
        poll = select.poll()
        poll.register(self._alive, select.POLLIN)
        poll.poll(timeout * 1000)
        self._alive = None

    def _close_before_exits(self) -> None:
        """``os._exit`` waits for the pump: in a container it is killed together with the process that ends it."""
        leave = os._exit

        def leave_closed(status: int) -> NoReturn:
            # Nothing is flushed, as ever: a thread that is stuck in a write holds the stream's lock.
            if os.getpid() == self._process:
                self._take_out(LAST_PUMP_TIMEOUT)
            leave(status)

        os._exit = leave_closed

    def _start(self) -> int | None:
        """Fork the pump; a descriptor that reads its end."""
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
            # Twice: the pump is nobody's child that a bot may wait for.
            with contextlib.suppress(OSError):
                os.setsid()
                if os.fork() == 0:
                    self._pump({descriptor: reader for descriptor, (reader, _) in pipes.items()}, held)
            os._exit(0)
        os.close(held)
        for descriptor, (reader, writer) in pipes.items():
            os.close(reader)
            self._pipes[descriptor] = os.fstat(writer)
            os.dup2(writer, descriptor)
            os.close(writer)
        with contextlib.suppress(ChildProcessError):  # whoever started us may have had SIGCHLD ignored
            os.waitpid(child, 0)
        return alive

    def _pump(self, sources: dict[int, int], held: int) -> NoReturn:
        """In the forked process, whose own standard output and error lead where they did."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends when there is nothing left to print
        files = set() if self.records is None else {self.records.descriptor}
        kept = sorted({0, 1, 2, held, *files, *sources.values()})
        for before, after in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True):
            os.closerange(before + 1, after)
        with contextlib.suppress(Exception):
            streams = [TeeStream(NAMES[d], source, d) for d, source in sources.items()]
            pump(streams, self.records, self._session, as_json=self.as_json)
        os._exit(0)

    def _watch(self) -> None:
        """Should the pump end before us, print without it: every line would fail otherwise."""
        alive = self._alive
        if alive is None:
            return
        os.read(alive, 1)
        if self._alive is not None and self._restore():
            self.print(PUMP_ENDED)
            self.say("WARNING", PUMP_ENDED)

    def _restore(self) -> bool:
        """Lead the two to where they led before, unless the bot has led them elsewhere; whether any was."""
        restored = False
        for descriptor, saved in self._saved.items():
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(descriptor), self._pipes[descriptor]):
                    os.dup2(saved, descriptor)
                    restored = True
        return restored
