"""Standard output and error: written in signal handlers, and kept from bots that close them."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from typing import TextIO


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


def own_stderr() -> TextIO:
    """Standard error as it is now, whatever a bot does to its stream or its descriptor."""
    raw = io.FileIO(os.dup(2), "wb")
    # Buffered, because a raw write may be partial; each line is flushed.
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True, write_through=True
    )


def keep_open() -> None:
    """Let a bot that closes them close them for no other."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            for closed in (stream, stream.buffer):  # the buffer also when a wrapper that a bot put around it is deleted
                setattr(closed, "close", closed.flush)  # noqa: B010


def restore() -> None:
    """Replace streams that a bot has set and closed."""
    if _is_closed(sys.stdout):
        sys.stdout = sys.__stdout__
    if _is_closed(sys.stderr):
        sys.stderr = sys.__stderr__


def _is_closed(stream: TextIO | None) -> bool:
    try:
        return stream is None or bool(getattr(stream, "closed", False))
    except ValueError:  # detached
        return True
