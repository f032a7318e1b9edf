"""What a command prints, and who reads it: a reader that leaves early, as ``head`` does, and one who waits."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

from pipecat_base.errors import EXIT_READER_GONE

PATIENCE = 1.0
"""Seconds that somebody waits without being told for what."""
INTERVAL = 0.5
"""Seconds between two figures."""
ERASE = "\r\x1b[K"
"""Empties the terminal's line (ECMA-48: EL)."""


def ending_quietly(command: Callable[[], int]) -> int:
    """The command's status; EXIT_READER_GONE where nobody reads what it prints any more."""
    try:
        try:
            return command()
        finally:
            flush()  # here, and not when the interpreter ends: it would tell of it
    except BrokenPipeError:
        gone = [descriptor for descriptor in (1, 2) if _has_no_reader(descriptor)]
        if not gone:
            raise  # another pipe's, or a socket's
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in gone:
            os.dup2(null, descriptor)
        return EXIT_READER_GONE


def flush() -> None:
    """Write out what standard output and standard error still hold."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # the program was started without it
            stream.flush()


@contextlib.contextmanager
def progress(what: str) -> Iterator[None]:
    """Around what may take long: a line with the seconds so far, on a terminal only. It is gone in the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()
    thread = threading.Thread(target=_count_seconds, args=(what, is_over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _count_seconds(what: str, is_over: threading.Event) -> None:
    started = time.monotonic()
    if is_over.wait(PATIENCE):
        return
    # To the terminal itself: the bot may have put something else in the place of sys.stderr.
    with contextlib.suppress(OSError):
        while not is_over.wait(INTERVAL):
            os.write(2, f"{ERASE}{what} ... {time.monotonic() - started:.0f} s".encode())
        os.write(2, ERASE.encode())


def _has_no_reader(descriptor: int) -> bool:
    look = select.poll()
    look.register(descriptor, 0)
    return any(happened & select.POLLERR for _, happened in look.poll(0))
