"""Handlers of SIGTERM and SIGINT."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from pipecat_base.errors import EXIT_SIGNAL_BASE
from pipecat_base.logs.streams import flush_streams

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_PROCESS = os.getpid()
_set = signal.signal


class Signals:
    """Exit at once while starting; then the first signal drains, the second ends promptly, the third kills.

    These are ordinary handlers, not the event loop's, which would not run while a bot blocks the loop.
    """

    def __init__(self, write_line: Callable[[str], None]) -> None:
        self.count = 0
        self.signal: int | None = None
        self.at = 0.0
        self._write_line = write_line
        self._listener: Callable[[int], None] | None = None
        self._process = os.getpid()

    def install(self) -> None:
        """Handle both signals; until :meth:`deliver_to`, exit with 128 + the number (PID 1 has no default action).

        Called with every heartbeat: it restores handlers that a bot has replaced, or a deploy would cut calls.
        """
        for number in SIGNALS:
            if signal.getsignal(number) != self._handle:
                _set(number, self._handle)
        # A bot may still replace a handler in C; the next heartbeat restores it.
        signal.signal = _set_unless_ours  # type: ignore[assignment]

    def deliver_to(self, listener: Callable[[int], None]) -> None:
        self._listener = listener

    @property
    def interactive(self) -> bool:
        return self.signal == signal.SIGINT

    @property
    def exit_status(self) -> int:
        return EXIT_SIGNAL_BASE + (self.signal or 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A child that the bot forked: it has no calls to drain.
            _set(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.count += 1
        if self.count == 1:
            self.signal, self.at = number, time.monotonic()
        if self._listener is None:
            self._write_line(
                f"{signal.Signals(number).name} received before the server was up; nothing to drain, exiting"
            )
        if self._listener is None or self.count > 2:
            flush_streams()
            os._exit(EXIT_SIGNAL_BASE + number)
        self._listener(self.count)


def _set_unless_ours(number: int, handler: Any) -> Any:
    """Replaces ``signal.signal``: in this process SIGTERM and SIGINT stay the launcher's."""
    if number in SIGNALS and threading.current_thread() is threading.main_thread() and os.getpid() == _PROCESS:
        return signal.getsignal(number)
    return _set(number, handler)
