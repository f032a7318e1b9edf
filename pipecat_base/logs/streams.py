"""Writes to standard output and error that are safe in a signal handler."""

from __future__ import annotations

import contextlib
import os
import select
import sys


def write_line(descriptor: int, text: str) -> None:
    """Write a line without ever waiting for whoever reads it. Safe in a signal handler, and just before the end."""
    poll = select.poll()
    with contextlib.suppress(OSError):
        poll.register(descriptor, select.POLLOUT)
        if poll.poll(0):
            os.write(descriptor, f"{text}\n".encode(errors="replace"))


def flush_streams() -> None:
    """Standard output and error, as far as that is possible now."""
    # In a signal's handler the stream may be in use; a pipe may be gone.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(RuntimeError, OSError, ValueError, AttributeError):  # None, where it was closed
            stream.flush()
