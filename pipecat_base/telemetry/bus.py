"""The stream of facts: who tells them, and who reads them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.telemetry.events import Event, make_event


class Emit(Protocol):
    """Takes a fact: its name, its session's id, its fields, and when, in Unix seconds; now unless given."""

    def __call__(
        self, name: str, session_id: str | None, fields: Mapping[str, Any] | None = None, at: float | None = None
    ) -> None:
        """One more."""


class EventSink(Protocol):
    """Reads facts. It must not wait: whoever tells them is on the way of a call."""

    def read(self, event: Event) -> None:
        """One more."""

    def close(self, within: float) -> None:
        """Finish what is under way, in so many seconds at most. Called in a thread."""


class EventBus:
    """Passes facts on to readers. One that fails costs nobody but itself."""

    def __init__(self, readers: Sequence[EventSink] = ()) -> None:
        self._readers = tuple(readers)
        self._complained: set[EventSink] = set()
        self._waited: set[str] = set()
        """Sessions that have waited for their peer: when they began says nothing of us."""
        self._admitted: set[str] = set()
        self._running: set[str] = set()

    @property
    def has_readers(self) -> bool:
        """Whether anybody reads."""
        return bool(self._readers)

    def emit(
        self, name: str, session_id: str | None, fields: Mapping[str, Any] | None = None, at: float | None = None
    ) -> None:
        """Tell a fact; what is unknown of it is left out."""
        told = make_event(name, session_id, fields or {}, at) if self._readers else None
        if told is None:
            return
        for reader in self._readers:
            try:
                reader.read(told)
            except Exception as error:
                if reader not in self._complained:
                    self._complained.add(reader)
                    logger.opt(exception=error).error(
                        f"{type(reader).__name__} failed at a fact ({told.name}); the others go on"
                    )

    def on_refusal(self, refusal: Refusal) -> None:
        """A request will not become a session."""
        self.emit("refused", refusal.session_id, {"reason": refusal.code})

    def on_change(self, session: Session) -> None:
        """A session has entered a state: tell it."""
        if session.state is SessionState.WAITING:
            self._waited.add(session.id)
            return
        transport = session.transport.value
        if session.state is SessionState.ADMITTED:
            if session.id in self._admitted:  # in its process too
                return
            self._admitted.add(session.id)
            self.emit("session_admitted", session.id, {"transport": transport, "peer": session.caller.peer})
        elif session.state is SessionState.RUNNING:
            if session.id in self._running:  # its next peer
                return
            self._running.add(session.id)
            start = None if session.id in self._waited else time.monotonic() - session.admitted_at
            self.emit("session_running", session.id, {"transport": transport, "start_secs": start})
        elif session.report is not None:
            self._admitted.discard(session.id)
            self._waited.discard(session.id)
            ended = {
                "transport": transport,
                "outcome": session.report.outcome.value,
                "reason": session.report.message,
                "duration_secs": session.report.seconds if session.id in self._running else None,
            }
            self._running.discard(session.id)
            self.emit("session_ended", session.id, ended)

    def close(self, within: float) -> None:
        """Let every reader finish. Called in a thread."""
        deadline = time.monotonic() + within
        for reader in self._readers:
            try:
                reader.close(max(0.0, deadline - time.monotonic()))
            except Exception as error:
                logger.opt(exception=error).error(f"{type(reader).__name__} did not end: {type(error).__name__}")
