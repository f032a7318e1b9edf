"""Report an import of the bot that does not end: ``main()`` without its guard, a download."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from pipecat_base.errors import ImportTimedOut
from pipecat_base.logs import tracebacks
from pipecat_base.server.loop_monitor import warn_in_thread
from pipecat_base.server.signals import SIGNALS

FIRST_REPORT_SECONDS = 10.0
"""The second one comes after twice as long, and so on."""
FIX = (
    'move what runs into bot() or setup(), or under if __name__ == "__main__"; build what it downloads into the image.'
)

GiveUp = Callable[[ImportTimedOut], NoReturn]
"""Reports the error and ends the process. Not called in the importing thread."""


@contextlib.contextmanager
def watching(
    file: Path, timeout: float | None, give_up: GiveUp, *, first_report: float = FIRST_REPORT_SECONDS
) -> Iterator[None]:
    """Context of the import, entered in its thread. A bot that holds the GIL in C code stops the reports too."""
    importing, is_over = threading.get_ident(), threading.Event()

    def frames() -> list[str]:
        return tracebacks.frames_of_thread(importing, str(file.parent)) or [file.name]

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they are for the main thread, as in Watchdog
        started = time.monotonic()
        for due in _times(first_report, timeout):
            if is_over.wait(max(0.0, started + due - time.monotonic())):
                return
            if due == timeout:
                give_up(_timed_out(file, due, frames()))
            warn_in_thread(
                f"The import of {file.name} has not ended after {due:g} s: {_place(frames())}. If it never ends, {FIX}"
            )

    thread = threading.Thread(target=watch, name="import-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()  # the process may fork next


def _times(first: float, timeout: float | None) -> Iterator[float]:
    """Seconds from the start: each report, and in the end the timeout."""
    for number in itertools.count():
        due = first * 2**number
        if timeout is not None and due >= timeout:
            yield timeout
            return
        yield due


def _place(frames: list[str]) -> str:
    innermost, *others = reversed(frames)
    return f"{innermost} (called from {others[-1]})" if others else innermost


def _timed_out(file: Path, seconds: float, frames: list[str]) -> ImportTimedOut:
    message = f"The import of {file.name} has not ended after {seconds:g} s (PIPECAT_IMPORT_TIMEOUT): {_place(frames)}."
    return ImportTimedOut(message, f"If it never ends, {FIX}", frames=frames)
