"""The event bus: everything that happens to sessions, for the event sinks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pipecat_base.errors import Refusal
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import Session, SessionState
from pipecat_base.telemetry.events import Event, make_event


class Emit(Protocol):
    """``EventBus.emit``; ``at`` is in Unix seconds, and now unless given."""

    def __call__(
        self, name: str, session_id: str | None, fields: Mapping[str, Any] | None = None, at: float | None = None
    ) -> None: ...


class EventSink(Protocol):
    def handle(self, event: Event) -> None:
        """Consume an event. Must not block: it runs in the task of a call."""

    def close(self, within: float) -> None:
        """Finish pending work within so many seconds. Called in a thread."""


class EventBus:
    """Passes events on to sinks; a sink that fails affects no other and no call."""

    def __init__(self, sinks: Sequence[EventSink] = ()) -> None:
        self._sinks = tuple(sinks)
        self._failed: set[EventSink] = set()
        # A session that waited for its peer did not start late because of us.
        self._waited: set[str] = set()
        self._admitted: set[str] = set()
        self._running: set[str] = set()

    @property
    def has_sinks(self) -> bool:
        return bool(self._sinks)

    def emit(
        self, name: str, session_id: str | None, fields: Mapping[str, Any] | None = None, at: float | None = None
    ) -> None:
        event = make_event(name, session_id, fields or {}, at) if self._sinks else None
        if event is None:
            return
        for sink in self._sinks:
            try:
                sink.handle(event)
            except Exception as error:
                if sink not in self._failed:
                    self._failed.add(sink)
                    logger.opt(exception=error).error(
                        f"{type(sink).__name__} failed to handle the event {name}; other event sinks are not affected"
                    )

    def on_refusal(self, refusal: Refusal) -> None:
        self.emit("refused", refusal.session_id, {"reason": refusal.code})

    def on_change(self, session: Session) -> None:
        """Emit the event of the session's new state."""
        if session.state is SessionState.WAITING:
            self._waited.add(session.id)
            return
        transport = session.transport.value
        if session.state is SessionState.ADMITTED:
            if session.id in self._admitted:  # a worker has admitted it too
                return
            self._admitted.add(session.id)
            admitted = {"transport": transport, "peer": session.caller.peer}
            # It may be announced later, when its worker has said that it begins.
            self.emit("session_admitted", session.id, admitted, session.entered[SessionState.ADMITTED].timestamp())
        elif session.state is SessionState.RUNNING:
            if session.id in self._running:  # with its next peer
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
        deadline = time.monotonic() + within
        for sink in self._sinks:
            try:
                sink.close(max(0.0, deadline - time.monotonic()))
            except Exception as error:
                logger.opt(exception=error).error(f"{type(sink).__name__} could not be closed: {type(error).__name__}")
