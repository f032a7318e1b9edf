"""The tee process: copies standard output and error to their former targets, and line by line to bot.jsonl."""

from __future__ import annotations

import datetime
import os
import select
from collections.abc import Iterator
from dataclasses import dataclass

from pipecat_base.logs.jsonl.records import Records, json_line
from pipecat_base.logs.jsonl.session import CurrentSession

MAX_LINE_BYTES = 16384
TRUNCATED = " ...[truncated]"
READ_BYTES = 65536


class LineSplitter:
    """Splits bytes into lines without their ends. An overlong line is yielded, truncated, before its end arrives."""

    def __init__(self) -> None:
        self._unfinished = b""
        self._dropping = False

    def feed(self, content: bytes) -> Iterator[str]:
        *lines, unfinished = (self._unfinished + content).split(b"\n")
        self._unfinished = unfinished
        for line in lines:
            if not self._dropping:
                yield _text(line)
            self._dropping = False
        if self._dropping:
            self._unfinished = b""
        elif len(unfinished) > MAX_LINE_BYTES:
            self._dropping, self._unfinished = True, b""
            yield _text(unfinished)

    def rest(self) -> Iterator[str]:
        if self._unfinished:
            yield _text(self._unfinished)
        self._unfinished = b""


def _text(line: bytes) -> str:
    line = line.rstrip(b"\r")
    truncated = TRUNCATED if len(line) > MAX_LINE_BYTES else ""
    return line[:MAX_LINE_BYTES].decode(errors="replace") + truncated


@dataclass
class TeeStream:
    name: str  # stdout or stderr
    source: int  # descriptors
    target: int


def copy_output(streams: list[TeeStream], records: Records | None, session: CurrentSession, *, as_json: bool) -> None:
    """Copy until every writer has closed its end; with ``as_json``, the targets get JSON lines too."""
    splitters = {stream.source: LineSplitter() for stream in streams}
    by_source = {stream.source: stream for stream in streams}
    poll = select.poll()
    for stream in streams:
        poll.register(stream.source, select.POLLIN)
    while by_source:
        for source, _ in poll.poll():
            stream = by_source[source]
            content = os.read(source, READ_BYTES)
            if content:
                if not as_json:
                    _write(stream.target, content)
                lines = splitters[source].feed(content)
            else:
                poll.unregister(source)
                del by_source[source]
                lines = splitters[source].rest()
            session_id = session.read()
            for line in lines:
                at = datetime.datetime.now()
                if records is not None:
                    records.append(json_line(stream.name, line, session_id=session_id, at=at))
                if as_json:
                    encoded = json_line(stream.name, line, session_id=session_id, at=at, is_console=True)
                    _write(stream.target, f"{encoded}\n".encode(errors="backslashreplace"))


def _write(target: int, content: bytes) -> None:
    try:
        while content:
            content = content[os.write(target, content) :]
    except OSError:
        return  # the reader has closed it; bot.jsonl is still written
