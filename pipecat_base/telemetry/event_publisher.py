"""The platform's event publisher: one ``POST`` for each fact of a session that is an event of its.

As the image that this one replaces does it: no batches, no second try. After ten failures in a row a session sends
nothing more; the next one tries again.
"""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from pipecat_base.logs.logger import logger
from pipecat_base.telemetry.delivery import DeliveryQueue
from pipecat_base.telemetry.events import EVENT_KINDS, Event
from pipecat_base.telemetry.http_post import NotTaken, PostConnection

PREFIX = "[pcc-observability]"
MOST_FAILURES = 10
"""In a row, in one session."""
LANES = 4
"""Threads: a publisher that takes its time for one event does not hold up every session's."""
MOST_WAITING = 10_000
"""In each of them."""


class EventPublisher:
    """Reads facts, and posts those that are events.

    Args:
        endpoint: PIPECAT_EVENT_PUBLISHER_ENDPOINT, the whole address.
        content: Whether what was said is sent.
    """

    def __init__(self, endpoint: str, *, content: bool) -> None:
        self._content = content
        self._lanes = [_Lane(endpoint, f"events {number}") for number in range(LANES)]
        if not content:
            logger.info(f"{PREFIX} PCC_EXCLUDE_CONTENT: transcripts are not published")

    def read(self, event: Event) -> None:
        """One more."""
        kind = EVENT_KINDS[event.name]
        if event.session_id is None or not (kind.is_event or event.name == "session_ended"):
            return
        if self._content or not kind.has_content:
            # Those of a session stay in order.
            self._lanes[hash(event.session_id) % LANES].outbox.put(event)

    def close(self, within: float) -> None:
        """Send what waits."""
        deadline = time.monotonic() + within
        done = [capture.outbox.close(max(0.0, deadline - time.monotonic())) for capture in self._lanes]
        if not all(done):
            logger.warning(f"{PREFIX} Some events were not published: the launcher ends")


class _Lane:
    """A thread, and what the sessions that it serves have failed at."""

    def __init__(self, endpoint: str, name: str) -> None:
        self._connection = PostConnection(endpoint)
        self._failures: dict[str, int] = {}
        self.outbox: DeliveryQueue[Event] = DeliveryQueue(name, self._send, most=MOST_WAITING, on_drop=_tell_of_drop)

    def _send(self, event: Event) -> None:
        session_id = event.session_id or ""
        if event.name == "session_ended":
            self._failures.pop(session_id, None)
            return
        if self._failures.get(session_id, 0) >= MOST_FAILURES:
            return
        try:
            self._connection.post(envelope(event))
        except NotTaken as error:
            self._count_failure(session_id, error)
        else:
            self._failures.pop(session_id, None)

    def _count_failure(self, session_id: str, error: NotTaken) -> None:
        if len(self._failures) > MOST_WAITING:  # of sessions whose end was dropped
            self._failures.clear()
        count = self._failures[session_id] = self._failures.get(session_id, 0) + 1
        with logger.contextualize(session_id=session_id):
            if error.status is not None:
                logger.warning(f"{PREFIX} Event publish failed: {error.status}")
            else:
                logger.warning(f"{PREFIX} Event publish error: {error}")
            if count == MOST_FAILURES:
                logger.warning(f"{PREFIX} {count} events in a row were not published: this session sends no more")


def envelope(event: Event) -> bytes:
    """``{ts, session_id, event_name, event_uuid, event_properties}``; no properties where there are none."""
    content: dict[str, Any] = {
        "ts": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="microseconds"),
        "session_id": event.session_id,
        "event_name": event.name,
        "event_uuid": str(uuid.uuid4()),
    }
    if event.fields:
        content["event_properties"] = event.fields
    return json.dumps(content).encode()


def _tell_of_drop(count: int) -> None:
    if count in (1, 100, 10_000):
        logger.warning(f"{PREFIX} {count} events were dropped: {MOST_WAITING} wait for the publisher")
