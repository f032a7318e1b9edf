"""The platform's event publisher: one ``POST`` for each event, as the base image that this one replaces does it.

No batches, no retries. After ten failures in a row a session sends nothing more; the next session tries again.
"""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from http.client import BadStatusLine, HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from pipecat_base import LAUNCHER
from pipecat_base.http_client import NoResponse
from pipecat_base.logs.logger import logger
from pipecat_base.telemetry.delivery import DeliveryQueue
from pipecat_base.telemetry.events import EVENT_KINDS, Event

PREFIX = "[pcc-observability]"
MAX_FAILURES_IN_A_ROW = 10
QUEUES = 4
"""A slow response delays only sessions that share its queue."""
MAX_PENDING_EVENTS = 10_000
TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 65536
HEADERS = {"content-type": "application/json", "user-agent": LAUNCHER}


class EventPublisher:
    def __init__(self, endpoint: str, *, content: bool) -> None:
        self._content = content
        self._failures: dict[str, int] = {}
        self._queues: list[DeliveryQueue[Event]] = [
            DeliveryQueue(
                f"events {number}",
                partial(self._publish, PostConnection(endpoint)),
                max_items=MAX_PENDING_EVENTS,
                on_drop=_log_drop,
            )
            for number in range(QUEUES)
        ]
        if not content:
            logger.info(f"{PREFIX} PCC_EXCLUDE_CONTENT: transcripts are not published")

    def handle(self, event: Event) -> None:
        kind = EVENT_KINDS[event.name]
        if event.session_id is None or not (kind.is_published or event.name == "session_ended"):
            return
        if self._content or not kind.has_content:
            # One queue for each session keeps its events in order.
            self._queues[hash(event.session_id) % QUEUES].put(event)

    def close(self, within: float) -> None:
        deadline = time.monotonic() + within
        left = [queue.close(max(0.0, deadline - time.monotonic())) for queue in self._queues]
        if any(left):
            logger.warning(f"{PREFIX} Some events were not published: the launcher ends")

    def _publish(self, connection: PostConnection, event: Event) -> None:
        session_id = event.session_id or ""
        if event.name == "session_ended":
            self._failures.pop(session_id, None)
            return
        if self._failures.get(session_id, 0) >= MAX_FAILURES_IN_A_ROW:
            return
        try:
            status = connection.post(envelope(event))
        except NoResponse as error:
            self._count_failure(session_id, f"Event publish error: {error}")
        else:
            if status >= 400:
                self._count_failure(session_id, f"Event publish failed: {status}")
            else:
                self._failures.pop(session_id, None)

    def _count_failure(self, session_id: str, message: str) -> None:
        if len(self._failures) > MAX_PENDING_EVENTS:  # of sessions whose end was dropped
            self._failures.clear()
        count = self._failures[session_id] = self._failures.get(session_id, 0) + 1
        with logger.contextualize(session_id=session_id):
            logger.warning(f"{PREFIX} {message}")
            if count == MAX_FAILURES_IN_A_ROW:
                logger.warning(f"{PREFIX} {count} events in a row were not published: this session sends no more")


class PostConnection:
    """A connection that is kept between requests. Used by one thread; goes through no proxy."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        kind = HTTPSConnection if parts.scheme.lower() == "https" else HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)

    def post(self, content: bytes) -> int:
        """The status of the response. The text of NoResponse holds no part of the address."""
        was_kept = self._http.sock is not None
        try:
            self._http.request("POST", self._target, content, HEADERS)
            response = self._http.getresponse()
            if len(response.read(MAX_RESPONSE_BYTES)) == MAX_RESPONSE_BYTES:
                self._http.close()
            return response.status
        except (OSError, HTTPException) as error:
            with suppress(OSError):
                self._http.close()
            # The server may close a connection that is kept: the second try is on a new one.
            if was_kept and isinstance(error, ConnectionError | BadStatusLine):
                return self.post(content)
            raise NoResponse(getattr(error, "strerror", None) or type(error).__name__) from None


def envelope(event: Event) -> bytes:
    """``{ts, session_id, event_name, event_uuid, event_properties}``; the last only if there are any."""
    content: dict[str, Any] = {
        "ts": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="microseconds"),
        "session_id": event.session_id,
        "event_name": event.name,
        "event_uuid": str(uuid.uuid4()),
    }
    if event.fields:
        content["event_properties"] = event.fields
    return json.dumps(content).encode()


def _log_drop(count: int) -> None:
    if count in (1, 100, 10_000):
        logger.warning(f"{PREFIX} {count} events were dropped: {MAX_PENDING_EVENTS} wait for the publisher")
