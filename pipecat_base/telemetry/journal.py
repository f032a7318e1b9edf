"""Reports on disk, so that a launcher that is killed loses none of them.

A launcher appends to a journal of its own and holds a lock on it. A launcher that starts in the same folder takes over
journals whose lock is free: it files reports that were not filed, and reports each call that had not ended.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pipecat_base.config import private_files
from pipecat_base.telemetry.call_report import of_killed

CALLS = "calls.jsonl"
"""One report per line; opened for each, as a log rotation may move it away."""
PREFIX, SUFFIX = "journal-", ".jsonl"
TAIL_BYTES = 4 * 1024 * 1024
"""End of ``calls.jsonl`` that is searched for reports that a crash kept from being noted as filed."""
MAX_UNSENT = 10_000
COMPACT_AT_BYTES = 4 * 1024 * 1024

Entries = dict[str, dict[str, Any]]
"""By id of a report: ``begun`` with its head, ``ended`` with the report, ``filed`` and ``sent`` with its id."""


class Journal:
    """Used by one thread. With ``sends``, a report stays until it is sent too."""

    def __init__(self, folder: str, *, sends: bool) -> None:
        private_files.make_folder(folder)
        self._folder = folder
        self._sends = sends
        self._pending: Entries = {}
        self._compact_at = COMPACT_AT_BYTES
        self._path, self._descriptor = self._create()

    def adopt(self) -> list[Mapping[str, Any]]:
        """Take over journals of launchers that have ended; the reports that are still to be sent."""
        for name in sorted(os.listdir(self._folder)):
            path = os.path.join(self._folder, name)
            if name.startswith(PREFIX) and name.endswith(SUFFIX) and path != self._path:
                try:
                    self._take_over(path)
                except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                    os.replace(path, f"{path}.unreadable")
                except OSError:
                    continue  # its launcher runs, or another one has taken it over
        return [entries["ended"] for entries in self._unsent()]

    def begin(self, head: Mapping[str, Any]) -> None:
        self._note(head["id"], begun=head)

    def end(self, report: Mapping[str, Any]) -> None:
        self._pending.pop(report["id"], None)
        self._note(report["id"], ended=report)
        self._file_all()

    def sent(self, report_id: str) -> None:
        """Note a report that was accepted, or never will be."""
        if report_id in self._pending:
            self._note(report_id, sent=report_id)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._file_all()
        if not self._pending:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
        os.close(self._descriptor)

    def _unsent(self) -> list[dict[str, Any]]:
        return [entries for entries in self._pending.values() if "filed" in entries and "sent" not in entries]

    def _is_done(self, entries: Mapping[str, Any]) -> bool:
        return "filed" in entries and ("sent" in entries or not self._sends)

    def _note(self, report_id: str, **entry: Any) -> None:
        entries = self._pending.setdefault(report_id, {})
        entries.update(entry)
        if self._is_done(entries):
            del self._pending[report_id]
        _write(self._descriptor, _lines(entry.items()))
        if os.fstat(self._descriptor).st_size > self._compact_at:
            self._compact()

    def _file_all(self) -> None:
        """File also the reports for which the disk was full until now."""
        for report_id, entries in list(self._pending.items()):
            if "ended" in entries and "filed" not in entries:
                self._file(entries["ended"])
                self._note(report_id, filed=report_id)
        for entries in self._unsent()[:-MAX_UNSENT]:
            self.sent(entries["filed"])

    def _file(self, report: Mapping[str, Any]) -> None:
        descriptor = private_files.open_file(os.path.join(self._folder, CALLS), os.O_RDWR | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            size = os.fstat(descriptor).st_size
            is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"  # by a kill, or a loss of power
            _write(descriptor, b"\n" * is_cut + _line(report))
        finally:
            os.close(descriptor)

    def _compact(self) -> None:
        """Continue in a new journal, without reports that are done."""
        content = b"".join(_lines(entries.items()) for entries in self._pending.values())
        self._compact_at = max(COMPACT_AT_BYTES, 2 * len(content))
        path, descriptor = self._create()
        try:
            _write(descriptor, content)
        except OSError:
            os.close(descriptor)
            os.unlink(path)
            raise
        os.unlink(self._path)
        os.close(self._descriptor)
        self._path, self._descriptor = path, descriptor

    def _create(self) -> tuple[str, int]:
        path = os.path.join(self._folder, f"{PREFIX}{uuid.uuid4()}{SUFFIX}")
        descriptor = private_files.open_file(path, os.O_RDWR | os.O_APPEND)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, descriptor

    def _take_over(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = _read(path)  # fails if another launcher has removed it
            filed = set() if all("filed" in entries for entries in found.values()) else self._filed_lately()
            for report_id, entries in found.items():
                head = entries.pop("begun", None)
                if "ended" not in entries and head is not None:
                    entries["ended"] = of_killed(head, os.fstat(descriptor).st_mtime)
                if report_id in filed:
                    entries["filed"] = report_id
                if "ended" in entries and not self._is_done(entries):
                    self._note(report_id, **entries)
            self._file_all()
            os.unlink(path)
        finally:
            os.close(descriptor)

    def _filed_lately(self) -> set[str]:
        try:
            with open(os.path.join(self._folder, CALLS), "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
                return {entry["id"] for entry in _parsed(file.read()) if "id" in entry}
        except OSError:
            return set()


def _write(descriptor: int, content: bytes) -> None:
    """Write all of it or, on a full disk, nothing."""
    size = os.fstat(descriptor).st_size
    try:
        while content:
            content = content[os.write(descriptor, content) :]
    except OSError:
        os.ftruncate(descriptor, size)
        raise


def _lines(entries: Iterable[tuple[str, Any]]) -> bytes:
    return b"".join(_line({kind: value}) for kind, value in entries)


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode() + b"\n"


def _read(path: str) -> Entries:
    found: Entries = {}
    with open(path, "rb") as file:
        for line in _parsed(file.read()):
            for kind, value in line.items():
                if kind in ("begun", "ended"):
                    found.setdefault(value["id"], {})[kind] = value
                elif kind in ("filed", "sent"):
                    found.setdefault(value, {})[kind] = value
    return found


def _parsed(content: bytes) -> Iterator[dict[str, Any]]:
    """Skip incomplete lines: the last, after a kill, and the first of a file's tail."""
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry
