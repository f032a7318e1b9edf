"""Standard output and error, safe to use in a signal handler."""

from __future__ import annotations

import contextlib
import os
import select
import sys


def write_line(descriptor: int, text: str) -> None:
    """Write a line, or drop it rather than wait for the reader."""
    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(descriptor, select.POLLOUT)
        if poll.poll(0):
            os.write(descriptor, f"{text}\n".encode(errors="replace"))


def flush_streams() -> None:
    # In a signal handler the stream may be in use; a pipe may be closed.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            RuntimeError, OSError, ValueError, AttributeError
        ):  # None if it was closed at the start
            stream.flush()
