"""``bot.jsonl``: one compact JSON object a line, appended at once, and rotated.

The launcher and the tee process write it. Each line is one ``write`` to a file opened for appending, so lines never
mix. The process that finds the file full renames it, and the other one notices that its file has left the path.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
import stat

from pipecat_base.config import private_files
from pipecat_base.logs.throttle import LogThrottle

FILE = "bot.jsonl"
MAX_BYTES = 64_000_000
# JSON does not escape these, but some readers take them for the end of a line.
LINE_ENDS = {ord(end): f"\\u{ord(end):04x}" for end in "\x85\u2028\u2029"}
NOT_SERIALIZED = "<pcc_structured_logs: serialization failed>"
# https://cloud.google.com/logging/docs/reference/v2/rest/v2/LogEntry#LogSeverity
SEVERITIES: dict[str | None, str] = {
    "TRACE": "DEBUG",
    "SUCCESS": "INFO",
    **{name: name for name in ("DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY")},
}
COMPLAINT_INTERVAL_SECONDS = 60.0


def json_line(
    stream: str,
    line: str,
    *,
    level: str | None = None,
    session_id: str | None = None,
    at: datetime.datetime | None = None,
    is_console: bool = False,
) -> str:
    """A line of the file, without its end; the stream is ``app`` (log lines), ``stdout`` or ``stderr``.

    One of the console has Google Cloud's names of level and line too.
    """
    fields = {"@timestamp": (at or datetime.datetime.now()).astimezone().isoformat(timespec="microseconds")}
    fields["stream"] = stream
    if level is not None:
        fields["level"] = level
    if session_id is not None:
        fields["session_id"] = session_id
    fields["line"] = line
    try:
        if is_console:
            fields |= {"severity": SEVERITIES.get(level, "DEFAULT"), "message": line}
        encoded = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    except (TypeError, ValueError):  # the bot has set a level or an id of another type
        known = {"session_id": session_id} if isinstance(session_id, str) else {}
        fields = {"@timestamp": fields["@timestamp"], "stream": stream, "level": "ERROR", **known}
        google = {"severity": "ERROR", "message": NOT_SERIALIZED} if is_console else {}
        encoded = json.dumps({**fields, "line": NOT_SERIALIZED, **google}, separators=(",", ":"))
    return encoded.translate(LINE_ENDS)


class Records:
    """Appends to the file."""

    def __init__(self, folder: str, *, max_bytes: int = MAX_BYTES) -> None:
        private_files.make_folder(folder)
        self._folder = folder
        self._path = os.path.join(folder, FILE)
        self._max_bytes = max_bytes
        self._descriptor = self._open()
        # On a nearly full disk some lines fit and others do not.
        self._complaints = LogThrottle(COMPLAINT_INTERVAL_SECONDS)

    def append(self, line: str) -> None:
        """Write one record. A full disk loses records and causes one complaint a minute, but never an exception."""
        try:
            self._append(line.encode(errors="backslashreplace") + b"\n")
        except OSError as error:
            complaint = f"pipecat-base: PCC_LOG_DIR: {self._path} cannot be written: {error.strerror}"
            if (text := self._complaints.admit(complaint, kind="write")) is not None:
                with contextlib.suppress(OSError):
                    os.write(2, f"{text}\n".encode(errors="replace"))

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def _append(self, content: bytes) -> None:
        if not self._is_current():
            self._reopen()
        if os.fstat(self._descriptor).st_size + len(content) > self._max_bytes:
            self._rotate()
        while content:
            content = content[os.write(self._descriptor, content) :]

    def _open(self) -> int:
        # O_NONBLOCK: the file may be a FIFO without a reader.
        return private_files.open_file(self._path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK, _mode_in(self._folder))

    def _reopen(self) -> None:
        descriptor = self._open()
        os.close(self._descriptor)
        self._descriptor = descriptor

    def _is_current(self) -> bool:
        # The other process or a log shipper may have moved the file.
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        # A descriptor of its own for the lock: forked processes share self._descriptor, and with it any lock on it.
        lock = self._open()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self._is_current() and os.path.samestat(os.fstat(lock), os.fstat(self._descriptor)):
                os.replace(self._path, f"{self._path}.1")
        finally:
            os.close(lock)
        self._reopen()


def _mode_in(folder: str) -> int:
    """Users who could replace the file may read it too: a log shipper on a volume that containers share (0777, 2770).

    In a sticky folder like /tmp (1777), only the owner can replace a file.
    """
    mode = os.stat(folder).st_mode
    by_group = stat.S_IRGRP if mode & stat.S_IWGRP and mode & stat.S_ISGID else 0
    by_others = stat.S_IRGRP | stat.S_IROTH if mode & stat.S_IWOTH and not mode & stat.S_ISVTX else 0
    return private_files.FILE | by_group | by_others
