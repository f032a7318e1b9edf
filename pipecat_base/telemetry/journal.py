"""What is known of calls, on disk, so that a launcher that is killed loses none of their reports.

A launcher appends to a file of its own and holds a lock on it. The next one that starts with the same folder takes
over the files whose lock is free: it files what was not filed, and makes a report of each call that had not ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pipecat_base.config import private_files
from pipecat_base.telemetry.call_report import of_killed

CALLS = "calls.jsonl"
"""One report a line. It is opened for each one: a log rotation may move it away."""
PREFIX, SUFFIX = "journal-", ".jsonl"
TAIL = 4 * 1024 * 1024
"""Bytes at the end of the reports' file in which one that a crash may have cut off from its note is looked for."""
MOST_UNSENT = 10_000
COMPACT_AT = 4 * 1024 * 1024
"""Bytes after which the journal is written again without what is done."""


class Journal:
    """Of one launcher. Used by one thread.

    Args:
        folder: PIPECAT_REPORTS_DIR; made if it is not there.
        sends: Whether reports are to be sent too, and so stay until they are.

    Raises:
        OSError: the folder cannot be used.
    """

    def __init__(self, folder: str, *, sends: bool) -> None:
        private_files.make_folder(folder)
        self._folder = folder
        self._sends = sends
        self._open: dict[str, Mapping[str, Any]] = {}
        self._unfiled: dict[str, Mapping[str, Any]] = {}
        self._unsent: dict[str, Mapping[str, Any]] = {}
        self._sent_unfiled: set[str] = set()
        """Those that were sent before they could be filed."""
        self._compact_at = COMPACT_AT
        self._path = os.path.join(folder, f"{PREFIX}{uuid.uuid4()}{SUFFIX}")
        self._descriptor = self._create(self._path)

    def adopt(self) -> list[Mapping[str, Any]]:
        """Take over what launchers that are gone have left; the reports that are still to be sent."""
        for name in sorted(os.listdir(self._folder)):
            path = os.path.join(self._folder, name)
            if name.startswith(PREFIX) and name.endswith(SUFFIX) and path != self._path:
                try:
                    self._take_over(path)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    os.replace(path, f"{path}.unreadable")
                except OSError:
                    continue  # its launcher lives
        return list(self._unsent.values())

    def begin(self, head: Mapping[str, Any]) -> None:
        """A call has begun."""
        self._open[head["id"]] = head
        self._append({"begun": head})

    def end(self, report: Mapping[str, Any]) -> None:
        """It has ended: note it, then file it."""
        self._open.pop(report["id"], None)
        self._unfiled[report["id"]] = report
        self._append({"ended": report})
        self._file_all()

    def sent(self, report_id: str) -> None:
        """The other side has it, or will never take it."""
        if report_id in self._unfiled:
            self._sent_unfiled.add(report_id)
        elif self._unsent.pop(report_id, None) is not None:
            self._append({"sent": report_id})

    def close(self) -> None:
        """Leave nothing behind, unless something is left to be done."""
        with contextlib.suppress(OSError):
            self._file_all()
        if not (self._open or self._unfiled or self._unsent):
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._descriptor)

    def _file_all(self) -> None:
        """The report that has come, and those for which the disk was full."""
        for report in list(self._unfiled.values()):
            self._file(report)

    def _file(self, report: Mapping[str, Any]) -> None:
        report_id = report["id"]
        line = json.dumps(report, separators=(",", ":")).encode() + b"\n"
        descriptor = private_files.open_file(os.path.join(self._folder, CALLS), os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a kill, or a loss of power
            _write(descriptor, b"\n" + line if is_cut else line)
        finally:
            os.close(descriptor)
        del self._unfiled[report_id]
        self._append({"filed": report_id})
        if report_id in self._sent_unfiled:
            self._sent_unfiled.discard(report_id)
            self._append({"sent": report_id})
        elif self._sends:
            self._unsent[report_id] = report
            self._give_up_oldest()

    def _give_up_oldest(self) -> None:
        """Too many wait to be sent: the oldest is in the file alone."""
        if len(self._unsent) > MOST_UNSENT:
            self.sent(next(iter(self._unsent)))

    def _append(self, entry: Mapping[str, Any]) -> None:
        _write(self._descriptor, json.dumps(entry, separators=(",", ":")).encode() + b"\n")
        if os.fstat(self._descriptor).st_size > self._compact_at:
            self._compact()

    def _compact(self) -> None:
        entries = [
            *({"begun": head} for head in self._open.values()),
            *({"ended": report} for report in self._unfiled.values()),
            *(entry for report in self._unsent.values() for entry in ({"ended": report}, {"filed": report["id"]})),
        ]
        content = b"".join(json.dumps(entry, separators=(",", ":")).encode() + b"\n" for entry in entries)
        self._compact_at = max(COMPACT_AT, 2 * len(content))
        path = os.path.join(self._folder, f"{PREFIX}{uuid.uuid4()}{SUFFIX}")
        descriptor = self._create(path)
        try:
            _write(descriptor, content)
        except OSError:
            os.close(descriptor)
            os.unlink(path)
            raise
        os.unlink(self._path)
        os.close(self._descriptor)
        self._path, self._descriptor = path, descriptor

    def _take_over(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            at = os.fstat(descriptor).st_mtime
            begun: dict[str, Mapping[str, Any]] = {}
            ended: dict[str, Mapping[str, Any]] = {}
            filed: set[str] = set()
            sent: set[str] = set()
            for entry in _entries(path):
                if "begun" in entry:
                    begun[entry["begun"]["id"]] = entry["begun"]
                elif "ended" in entry:
                    ended[entry["ended"]["id"]] = entry["ended"]
                elif "filed" in entry:
                    filed.add(entry["filed"])
                elif "sent" in entry:
                    sent.add(entry["sent"])
            for report_id, head in begun.items():
                if report_id not in ended:
                    ended[report_id] = of_killed(head, at)
            known = self._filed_lately() if ended.keys() - filed else set()
            for report_id, report in ended.items():
                if report_id not in filed and report_id not in known:
                    self.end(report)
                elif self._sends and report_id not in sent:
                    self._unsent[report_id] = report
                    self._append({"ended": report})
                    self._append({"filed": report_id})
            os.unlink(path)
        finally:
            os.close(descriptor)

    def _filed_lately(self) -> set[str]:
        try:
            with open(os.path.join(self._folder, CALLS), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
                return {entry["id"] for entry in _parsed(file.read()) if "id" in entry}
        except OSError:
            return set()

    @staticmethod
    def _create(path: str) -> int:
        descriptor = private_files.open_file(path, os.O_RDWR | os.O_APPEND)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor


def _write(descriptor: int, content: bytes) -> None:
    """All of it or, on a full disk, nothing."""
    size = os.fstat(descriptor).st_size
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _entries(path: str) -> Iterator[dict[str, Any]]:
    with open(path, "rb") as file:
        yield from _parsed(file.read())


def _parsed(content: bytes) -> Iterator[dict[str, Any]]:
    """What is whole: a kill may have cut the last line, and so may a look at a file's end the first."""
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
