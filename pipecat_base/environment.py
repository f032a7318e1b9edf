"""The process's environment: the one place that reads or changes it, and what one start hands on to the next."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping

PIPECAT_SETUP_FILES = "PIPECAT_SETUP_FILES"

GREETED = "--greeted"
"""Option of ``dev``: the start before has said what to open."""
LISTENER = "--listener"
"""Option of ``dev``: the socket that the start before has left open, so that no caller finds the port closed."""


def read() -> Mapping[str, str]:
    """A copy of the environment as it is now."""
    return dict(os.environ)


def add(variables: Mapping[str, str]) -> None:
    """Set variables for the bot to read."""
    os.environ.update(variables)


def append_setup_file(path: str) -> None:
    """Have pipecat load one more setup file, after the user's."""
    listed = [part for part in os.environ.get(PIPECAT_SETUP_FILES, "").split(os.pathsep) if part]
    if path not in listed:
        os.environ[PIPECAT_SETUP_FILES] = os.pathsep.join([*listed, path])


def allow_long_websocket_requests() -> None:
    """Before the first import of websockets, which otherwise leaves a request line over 8 KB without any answer."""
    os.environ.setdefault("WEBSOCKETS_MAX_LINE_LENGTH", str(1024 * 1024))


@contextlib.contextmanager
def without_default_log_sink() -> Iterator[None]:
    """Around loguru's first import: its sink 0, which bots remove by number, is then the first one that we add."""
    before = os.environ.get("LOGURU_AUTOINIT")
    os.environ["LOGURU_AUTOINIT"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOGURU_AUTOINIT"]
        else:
            os.environ["LOGURU_AUTOINIT"] = before
