"""``bot.jsonl``: one compact JSON object a line, appended at once, and rotated.

Two processes write it, the launcher and the pump. Each line is one ``write`` to a file opened for appending, so lines
never mix; whoever finds the file full renames it, and the other one notices that its own is no longer at the path.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import stat
import time

from pipecat_base.config import private_files

FILE = "bot.jsonl"
MAX_BYTES = 64_000_000
"""The file is renamed to ``bot.jsonl.1`` before it grows past this; the one that had that name is gone then."""
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
"""Characters that JSON leaves as they are, and that some readers take for the end of a line."""
NOT_SERIALIZED = "<pcc_structured_logs: serialization failed>"


def record(
    stream: str,
    line: str,
    *,
    level: str | None = None,
    session_id: str | None = None,
    at: datetime.datetime | None = None,
) -> str:
    """One line of the file, without its end: ``@timestamp``, ``stream``, ``level``, ``session_id``, ``line``.

    Args:
        stream: ``app`` for log lines, ``stdout`` or ``stderr`` for what was printed.
        level: Of a log line.
        session_id: Left out when there is none.
        at: When it was said; now unless given.
    """
    fields = {"@timestamp": (at or datetime.datetime.now()).astimezone().isoformat(timespec="microseconds")}
    fields["stream"] = stream
    if level is not None:
        fields["level"] = level
    if session_id is not None:
        fields["session_id"] = session_id
    fields["line"] = line
    try:
        encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):  # a level or an id of the bot's own making
        known = {"session_id": session_id} if isinstance(session_id, str) else {}
        fields = {"@timestamp": fields["@timestamp"], "stream": stream, "level": "ERROR", **known}
        encoded = json.dumps({**fields, "line": NOT_SERIALIZED}, separators=(",", ":"))
    return encoded.translate(LINE_ENDS)


QUIET = 60.0
"""Seconds between two complaints: on a disk that is all but full some lines fit and others do not."""


class Records:
    """Appends to the file. A process of its own has an object of its own.

    Args:
        folder: Made if it is not there.

    Raises:
        OSError: the folder or the file cannot be made.
    """

    def __init__(self, folder: str, *, max_bytes: int = MAX_BYTES) -> None:
        private_files.make_folder(folder)
        self._folder = folder
        self._path = os.path.join(folder, FILE)
        self._max_bytes = max_bytes
        self._descriptor = self._open()
        self._complain_at = 0.0

    def append(self, line: str) -> None:
        """Write one record. A full disk costs records, and a complaint of each process a minute, never the caller."""
        try:
            self._append(line.encode(errors="backslashreplace") + b"\n")
        except OSError as error:
            now = time.monotonic()
            if now >= self._complain_at:
                self._complain_at = now + QUIET
                complaint = f"pipecat-base: PCC_LOG_DIR: {self._path} cannot be written: {error.strerror}\n"
                with contextlib.suppress(OSError):
                    os.write(2, complaint.encode(errors="replace"))

    @property
    def descriptor(self) -> int:
        """The open file's."""
        return self._descriptor

    def _append(self, content: bytes) -> None:
        if not self._is_current():
            self._reopen()
        if os.fstat(self._descriptor).st_size + len(content) > self._max_bytes:
            self._rotate()
        while content:
            content = content[os.write(self._descriptor, content) :]

    def _open(self) -> int:
        # Not to wait for whoever reads a FIFO of that name.
        return private_files.open_file(self._path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, _mode_in(self._folder))

    def _reopen(self) -> None:
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _is_current(self) -> bool:
        """Whether our file is still the one at the path: the other process or a log shipper may have moved it."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        # Opened for the lock alone: processes that were forked share ours, and no lock of theirs would keep us out.
        lock = self._open()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current() and os.path.samestat(os.fstat(lock), os.fstat(self._descriptor)):
                os.replace(self._path, f"{self._path}.1")
        finally:
            os.close(lock)
        self._reopen()


def _mode_in(folder: str) -> int:
    """The file's own user reads it, and so may others who could replace it: on a volume shared with a log shipper.

    A volume of Kubernetes' that containers share can be written to by all (0777), or by its own group (2770). In
    /tmp (1777) nobody can replace another user's file.
    """
    mode = os.stat(folder).st_mode
    by_group = stat.S_IRGRP if mode & stat.S_IWGRP and mode & stat.S_ISGID else 0
    by_others = stat.S_IRGRP | stat.S_IROTH if mode & stat.S_IWOTH and not mode & stat.S_ISVTX else 0
    return private_files.FILE | by_group | by_others
