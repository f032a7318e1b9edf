"""SIGTERM and SIGINT."""

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
    """At once while starting, then first a drain, second a prompt end, third the kill.

    Ordinary handlers, not the loop's: those would not run while a bot blocks the loop.

    Args:
        say: Called with the line that tells of an end before there was anything to drain. In the handler.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.requested = 0
        self.signal: int | None = None
        self.at = 0.0
        self._say = say
        self._listener: Callable[[int], None] | None = None
        self._process = os.getpid()

    def install(self) -> None:
        """From now on a signal ends the process at once, with 128 + its number. PID 1 has no default for that.

        Called again with every heartbeat, it takes back what a bot has taken: a deploy would cut calls.
        """
        for number in SIGNALS:
            if signal.getsignal(number) != self._handle:
                _set(number, self._handle)
        # A bot that takes one all the same has done so in C: that is found at the next heartbeat.
        signal.signal = _for_others  # type: ignore[assignment]

    def deliver_to(self, listener: Callable[[int], None]) -> None:
        """``listener(count)`` is called in the handler from now on."""
        self._listener = listener

    @property
    def interactive(self) -> bool:
        """Whether a person pressed Ctrl-C."""
        return self.signal == signal.SIGINT

    @property
    def exit_status(self) -> int:
        """What a process ended by this signal reports."""
        return EXIT_SIGNAL_BASE + (self.signal or 0)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            # A child that the bot forked: it has no calls to drain.
            _set(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        self.requested += 1
        if self.requested == 1:
            self.signal, self.at = number, time.monotonic()
        if self._listener is None:
            self._say(f"{signal.Signals(number).name} received before the server was up; nothing to drain, exiting")
        if self._listener is None or self.requested > 2:
            flush_streams()
            os._exit(EXIT_SIGNAL_BASE + number)
        self._listener(self.requested)


def _for_others(number: int, handler: Any) -> Any:
    """What the bot finds as ``signal.signal``: in this process SIGTERM and SIGINT stay the launcher's."""
    if number in SIGNALS and threading.current_thread() is threading.main_thread() and os.getpid() == _PROCESS:
        return signal.getsignal(number)
    return _set(number, handler)
