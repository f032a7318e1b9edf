"""Output of a command: it may be read only in part, as by ``head``; and a person who waits sees progress."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator

from pipecat_base.errors import EXIT_READER_GONE

PROGRESS_DELAY_SECONDS = 1.0
PROGRESS_INTERVAL_SECONDS = 0.5
ERASE_LINE = "\r\x1b[K"  # ECMA-48: EL


def ending_quietly(command: Callable[[], int]) -> int:
    """Run the command; its exit status, or EXIT_READER_GONE if the reader of its output has closed the pipe."""
    try:
        try:
            return command()
        finally:
            flush()  # at its exit, the interpreter would print a BrokenPipeError
    except BrokenPipeError:
        closed = [descriptor for descriptor in (1, 2) if _has_no_reader(descriptor)]
        if not closed:
            raise  # of another pipe, or of a socket
        null = os.open(os.devnull, os.O_WRONLY)
        for descriptor in closed:
            os.dup2(null, descriptor)
        return EXIT_READER_GONE


def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: the program was started without it
            stream.flush()


@contextlib.contextmanager
def progress(activity: str) -> Iterator[None]:
    """Show the activity and its seconds in one line of a terminal, and erase the line in the end."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    is_over = threading.Event()
    thread = threading.Thread(target=_count_seconds, args=(activity, is_over), name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _count_seconds(activity: str, is_over: threading.Event) -> None:
    started = time.monotonic()
    if is_over.wait(PROGRESS_DELAY_SECONDS):
        return
    # To the terminal itself: the bot may have replaced sys.stderr.
    with contextlib.suppress(OSError):
        while not is_over.wait(PROGRESS_INTERVAL_SECONDS):
            # Back to the line's start: a log line then covers it.
            os.write(2, f"{ERASE_LINE}{activity} ... {time.monotonic() - started:.0f} s\r".encode())
        os.write(2, ERASE_LINE.encode())


def _has_no_reader(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLERR for _, events in poll.poll(0))
