"""Sends the events of a worker's sessions to the launcher, within the rate that it accepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipecat_base.logs.logger import logger
from pipecat_base.telemetry.events import make_event
from pipecat_base.workers.ipc.allowance import EventRateLimit
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import EventEmitted


class EventSender:
    def __init__(self, channel: Channel, max_calls: int) -> None:
        self._channel = channel
        self._rate_limit = EventRateLimit(max_calls)
        self._has_warned = False

    def send(self, session_id: str | None, name: str, fields: Mapping[str, Any], at: float) -> None:
        found = make_event(name, session_id, fields, at)
        if found is None:
            return
        if self._rate_limit.take(name):
            self._channel.send(EventEmitted(session_id, name, dict(found.fields), found.at))
        elif not self._has_warned:
            self._has_warned = True
            logger.warning("This process exceeded its event rate; some events are missing from metrics and reports")
