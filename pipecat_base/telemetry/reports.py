"""A report for every call: in a file, at an operator's address, and the latest ones in memory."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipecat_base import LAUNCHER, http_client
from pipecat_base.logs.logger import logger
from pipecat_base.logs.throttle import LogThrottle
from pipecat_base.sessions.outcome import MAX_REPORTS
from pipecat_base.telemetry.call_report import CallReport
from pipecat_base.telemetry.delivery import DeliveryQueue, TryAgain
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.journal import Journal

MAX_PENDING_REPORTS = 10_000
"""The journal keeps further reports until the next start."""
FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS = 1.0, 300.0
FINAL_STATUSES = (400, 410, 413, 422)
TIMEOUT_SECONDS = 5.0
MAX_RESPONSE_BYTES = 65536
LOG_INTERVAL_SECONDS = 60.0
TYPE = "call.ended"

JsonReport = Mapping[str, Any]


class Reports:
    """The event sink that makes reports, with transcripts if they have ``content``.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: str | None, url: str | None, secret: bytes | None, *, content: bool) -> None:
        self._content = content
        self._calls: dict[str, CallReport] = {}
        self._recent: OrderedDict[str, JsonReport] = OrderedDict()
        self._journal = None if folder is None else Journal(folder, sends=url is not None)
        self._throttle = LogThrottle(LOG_INTERVAL_SECONDS)
        # Only its thread uses the journal.
        self._journaling: DeliveryQueue[Callable[[], object]] = DeliveryQueue(
            "reports", self._write, max_items=MAX_PENDING_REPORTS, on_drop=_log_unwritten
        )
        self._sender = None if url is None else ReportSender(url, secret, on_done=self._on_sent)
        if self._journal is not None:
            self._journaling.put(partial(self._adopt, self._journal))

    def get(self, session_id: str) -> JsonReport | None:
        """The report, without its transcript, of a session that has ended lately."""
        return self._recent.get(session_id)

    def handle(self, event: Event) -> None:
        session_id = event.session_id
        if session_id is None:
            return
        if event.name == "session_admitted":
            call = self._calls[session_id] = CallReport(event, content=self._content)
            self._put(Journal.begin, call.head)
            return
        found = self._calls.get(session_id)
        if found is None:
            return
        if event.name != "session_ended":
            found.handle(event)
            return
        del self._calls[session_id]
        report = found.end(event)
        self._recent[session_id] = {name: value for name, value in report.items() if name != "transcript"}
        self._recent.move_to_end(session_id)
        if len(self._recent) > MAX_REPORTS:
            self._recent.popitem(last=False)
        self._put(Journal.end, report)
        if self._sender is not None:
            self._sender.put(report)

    def close(self, within: float) -> None:
        deadline = time.monotonic() + within
        unsent = 0 if self._sender is None else self._sender.close(within)
        unwritten = self._journaling.close(max(0.1, deadline - time.monotonic()))
        if self._journal is None:
            if unsent:
                logger.warning(
                    f"Reports of calls that were not sent: {unsent}; without PIPECAT_REPORTS_DIR they are lost"
                )
            return
        if unsent:
            logger.info(f"Reports that were not sent: {unsent}; the next start sends them")
        if not unwritten:
            self._journal.close()

    def _put(self, step: Callable[[Journal, Any], None], content: object) -> None:
        if self._journal is not None:
            self._journaling.put(partial(step, self._journal, content))

    def _on_sent(self, report: JsonReport) -> None:
        self._put(Journal.sent, report["id"])

    def _adopt(self, journal: Journal) -> None:
        for report in journal.adopt():
            if self._sender is not None:
                self._sender.put(report)

    def _write(self, step: Callable[[], object]) -> None:
        try:
            step()
        except OSError as error:
            line = self._throttle.admit(f"PIPECAT_REPORTS_DIR: a report cannot be written: {error.strerror}")
            if line is not None:
                logger.error(line)


class ReportSender(DeliveryQueue[JsonReport]):
    """Sends reports until they are accepted; ``on_done`` is called in its thread, for rejected ones too."""

    def __init__(self, url: str, secret: bytes | None, *, on_done: Callable[[JsonReport], None]) -> None:
        super().__init__(
            "report sender",
            self._send,
            max_items=MAX_PENDING_REPORTS,
            drops="newest",
            on_drop=_log_unsent,
            retry_seconds=(FIRST_RETRY_SECONDS, MAX_RETRY_SECONDS),
        )
        self._url = url
        self._secret = secret
        self._on_done = on_done
        self._is_failing = False

    def _send(self, report: JsonReport) -> None:
        status, failure = self._post(report)
        if status in FINAL_STATUSES:
            with logger.contextualize(session_id=report["session_id"]):
                logger.error(f"PIPECAT_REPORT_URL will not take a call's report: {failure}")
        elif failure is not None:
            if not self._is_failing:
                logger.warning(f"PIPECAT_REPORT_URL does not take reports ({failure}); trying again until it does")
            self._is_failing = True
            raise TryAgain
        else:
            if self._is_failing:
                logger.info("PIPECAT_REPORT_URL takes reports again")
            self._is_failing = False
        self._on_done(report)

    def _post(self, report: JsonReport) -> tuple[int | None, str | None]:
        """The status of the response, and the reason why the report was not accepted."""
        content = json.dumps({"type": TYPE, "timestamp": report["ended_at"], "data": report}).encode()
        try:
            status = http_client.send(
                "POST",
                self._url,
                timeout=TIMEOUT_SECONDS,
                headers=signed(report["id"], int(time.time()), content, self._secret),
                content=content,
                max_bytes=MAX_RESPONSE_BYTES,
                uses_proxy=True,
            ).status
        except http_client.NoResponse as error:
            return None, str(error)
        return status, f"HTTP status {status}" if status >= 300 else None


def signed(message_id: str, timestamp: int, content: bytes, secret: bytes | None) -> dict[str, str]:
    """Headers of https://www.standardwebhooks.com; without a secret, no signature."""
    headers = {
        "content-type": "application/json",
        "user-agent": LAUNCHER,
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
    }
    if secret is not None:
        digest = hmac.new(secret, f"{message_id}.{timestamp}.".encode() + content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers


def _log_unsent(count: int) -> None:
    logger.error(f"PIPECAT_REPORT_URL: {MAX_PENDING_REPORTS} reports wait; another is not sent before the next start")


def _log_unwritten(count: int) -> None:
    if count in (1, 100, 10_000):
        logger.error(f"PIPECAT_REPORTS_DIR: reports that were not written, as the disk is too slow: {count}")
