"""A report for every call: in a file, at an address of the operator's, and of the last ones in memory."""

from __future__ import annotations

import base64
import hashlib
import heapq
import hmac
import itertools
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import MAX_REPORTS
from pipecat_base.telemetry.call_report import CallReport
from pipecat_base.telemetry.delivery import DeliveryQueue
from pipecat_base.telemetry.events import Event
from pipecat_base.telemetry.http_post import NotTaken, post
from pipecat_base.telemetry.journal import Journal

MOST_WAITING = 10_000
"""Reports that wait to be sent. More are not sent before the next start, which needs PIPECAT_REPORTS_DIR."""
FIRST_RETRY, LAST_RETRY = 1.0, 300.0
"""Seconds before the next try when the address does not take a report; doubled with each."""
NEVER = (400, 410, 413, 422)
"""Statuses by which the other side says that it will never take this report; others are tried again."""
QUIET = 60.0
"""Seconds between two complaints of a disk."""
TYPE = "call.ended"

Step = tuple[str, Mapping[str, Any]]


class Reports:
    """Reads facts, and makes reports of them.

    Args:
        folder: PIPECAT_REPORTS_DIR; None keeps no file, and what was not sent is lost with the launcher.
        url: PIPECAT_REPORT_URL; None sends nothing.
        secret: Signs what is sent: the key, decoded.
        content: Whether what was said is in reports.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: str | None, url: str | None, secret: bytes | None, *, content: bool) -> None:
        self._content = content
        self._calls: dict[str, CallReport] = {}
        self._recent: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        self._journal = None if folder is None else Journal(folder, sends=url is not None)
        self._complain_at = 0.0
        self._filing: DeliveryQueue[Step] = DeliveryQueue(
            "reports", self._file, most=MOST_WAITING, on_drop=self._tell_of_unfiled
        )
        self._sender = None if url is None else ReportSender(url, secret, on_done=self._note_sent)
        if self._journal is not None:
            self._filing.put(("adopt", {}))

    def get(self, session_id: str) -> Mapping[str, Any] | None:
        """The report of a session that has ended lately."""
        return self._recent.get(session_id)

    def read(self, event: Event) -> None:
        """One more."""
        session_id = event.session_id
        if session_id is None:
            return
        if event.name == "session_admitted":
            call = self._calls[session_id] = CallReport(event, content=self._content)
            self._put("begin", call.head)
            return
        found = self._calls.get(session_id)
        if found is None:
            return
        if event.name != "session_ended":
            found.read(event)
            return
        del self._calls[session_id]
        report = found.end(event)
        self._recent[session_id] = {name: value for name, value in report.items() if name != "transcript"}
        self._recent.move_to_end(session_id)
        if len(self._recent) > MAX_REPORTS:
            self._recent.popitem(last=False)
        self._put("end", report)
        if self._sender is not None:
            self._sender.put(report)

    def close(self, within: float) -> None:
        """File what waits, and send it if that can be done in time."""
        deadline = time.monotonic() + within
        unsent = 0 if self._sender is None else self._sender.close(within)
        is_filed = self._filing.close(max(0.1, deadline - time.monotonic()))
        if self._journal is None:
            if unsent:
                logger.warning(
                    f"Reports of calls that were not sent: {unsent}; without PIPECAT_REPORTS_DIR they are lost"
                )
            return
        if unsent:
            logger.info(f"Reports that were not sent: {unsent}; the next start sends them")
        if is_filed:
            self._journal.close()

    def _put(self, step: str, content: Mapping[str, Any]) -> None:
        if self._journal is not None:
            self._filing.put((step, content))

    def _note_sent(self, report: Mapping[str, Any]) -> None:
        self._put("sent", report)

    def _file(self, step: Step) -> None:
        """In the thread of the files."""
        assert self._journal is not None
        name, content = step
        try:
            if name == "adopt":
                for report in self._journal.adopt():
                    if self._sender is not None:
                        self._sender.put(report)
            elif name == "begin":
                self._journal.begin(content)
            elif name == "end":
                self._journal.end(content)
            else:
                self._journal.sent(content["id"])
        except OSError as error:
            if time.monotonic() >= self._complain_at:
                self._complain_at = time.monotonic() + QUIET
                logger.error(f"PIPECAT_REPORTS_DIR: a report cannot be written: {error.strerror}")

    def _tell_of_unfiled(self, count: int) -> None:
        if count in (1, 100, 10_000):
            logger.error(f"PIPECAT_REPORTS_DIR: reports that were not written, as the disk is too slow: {count}")


class ReportSender:
    """Sends reports, as often as it takes; one that is not taken holds up no other.

    Args:
        on_done: Called with each that the other side has taken, or never will. In the thread.
    """

    def __init__(
        self,
        url: str,
        secret: bytes | None,
        *,
        on_done: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._url = url
        self._secret = secret
        self._on_done = on_done
        self._waiting: list[tuple[float, int, float, Mapping[str, Any]]] = []
        """When it is to be tried, its number, the seconds before the try after that, and the report."""
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._is_busy = False
        self._is_closing = False
        self._is_failing = False
        self._thread: threading.Thread | None = None

    def put(self, report: Mapping[str, Any]) -> None:
        """One more."""
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="report sender", daemon=True)
                self._thread.start()
            if len(self._waiting) >= MOST_WAITING:
                logger.error(
                    f"PIPECAT_REPORT_URL: {MOST_WAITING} reports wait; another is not sent before the next start"
                )
                return
            heapq.heappush(self._waiting, (time.monotonic(), next(self._numbers), FIRST_RETRY, report))
            self._changed.notify_all()

    def close(self, within: float) -> int:
        """Try what waits once more; how many were not sent."""
        deadline = time.monotonic() + within
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
            while self._is_busy or any(number >= 0 for _, number, _, _ in self._waiting):
                left = deadline - time.monotonic()
                if left <= 0 or self._thread is None:
                    break
                self._changed.wait(left)
            return len(self._waiting) + self._is_busy

    def _run(self) -> None:
        while True:
            retry, report = self._next()
            is_done = self._try(report)
            if is_done:
                self._on_done(report)
            with self._changed:
                self._is_busy = False
                if not is_done:
                    # At the end each is tried once more: negative is the number of one that was.
                    number = next(self._numbers)
                    number = -1 - number if self._is_closing else number
                    again = (time.monotonic() + retry, number, min(LAST_RETRY, 2 * retry), report)
                    heapq.heappush(self._waiting, again)
                self._changed.notify_all()

    def _next(self) -> tuple[float, Mapping[str, Any]]:
        """The next one that is to be tried, when it is."""
        with self._changed:
            while True:
                if self._is_closing:
                    found = next((entry for entry in self._waiting if entry[1] >= 0), None)
                else:
                    found = self._waiting[0] if self._waiting and self._waiting[0][0] <= time.monotonic() else None
                if found is not None:
                    self._waiting.remove(found)
                    heapq.heapify(self._waiting)
                    self._is_busy = True
                    return found[2], found[3]
                due = self._waiting[0][0] - time.monotonic() if self._waiting and not self._is_closing else None
                self._changed.wait(due)

    def _try(self, report: Mapping[str, Any]) -> bool:
        """Whether there is nothing more to be done."""
        body = json.dumps({"type": TYPE, "timestamp": report["ended_at"], "data": report}).encode()
        try:
            post(self._url, body, signed(report["id"], int(time.time()), body, self._secret))
        except NotTaken as error:
            if error.status in NEVER:
                with logger.contextualize(session_id=report["session_id"]):
                    logger.error(f"PIPECAT_REPORT_URL will not take a call's report: {error}")
                return True
            if not self._is_failing:
                logger.warning(f"PIPECAT_REPORT_URL does not take reports ({error}); trying again until it does")
            self._is_failing = True
            return False
        if self._is_failing:
            logger.info("PIPECAT_REPORT_URL takes reports again")
        self._is_failing = False
        return True


def signed(message_id: str, timestamp: int, body: bytes, secret: bytes | None) -> dict[str, str]:
    """Headers as https://www.standardwebhooks.com has them; without a secret, no signature."""
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if secret is not None:
        content = f"{message_id}.{timestamp}.".encode() + body
        digest = hmac.new(secret, content, hashlib.sha256).digest()
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
