"""The process that what is printed passes through: to where it was going, and line by line into the lane."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from dataclasses import dataclass

from pipecat_base.logs.jsonl.records import Records, record
from pipecat_base.logs.jsonl.session import CurrentSession

LONGEST_LINE = 16384
"""Bytes of a printed line that are kept; what follows passes through all the same."""
CUT = " ...[truncated]"
CHUNK = 65536


class Lines:
    """Bytes in, lines out, without their ends. A line that is too long comes out cut, as soon as it is."""

    def __init__(self) -> None:
        self._begun = b""
        self._dropping = False

    def feed(self, content: bytes) -> Iterator[str]:
        """The lines that these bytes complete."""
        *ended, begun = (self._begun + content).split(b"\n")
        self._begun = begun
        for line in ended:
            if not self._dropping:
                yield _text(line)
            self._dropping = False
        if self._dropping:
            self._begun = b""
        elif len(begun) > LONGEST_LINE:
            self._dropping, self._begun = True, b""
            yield _text(begun)

    def rest(self) -> Iterator[str]:
        """What was printed last, without an end."""
        if self._begun:
            yield _text(self._begun)
        self._begun = b""


def _text(line: bytes) -> str:
    line = line.rstrip(b"\r")
    cut = CUT if len(line) > LONGEST_LINE else ""
    return line[:LONGEST_LINE].decode(errors="replace") + cut


@dataclass
class TeeStream:
    """One of the two.

    Attributes:
        name: ``stdout`` or ``stderr``.
        source: The descriptor that it comes from.
        target: The one that it goes to.
    """

    name: str
    source: int
    target: int


def pump(streams: list[TeeStream], records: Records | None, session: CurrentSession, *, as_json: bool) -> None:
    """Pass everything on until nobody can print any more.

    Args:
        as_json: Pass lines on as the lane has them.
    """
    lines = {stream.source: Lines() for stream in streams}
    by_source = {stream.source: stream for stream in streams}
    poll = select.poll()
    for stream in streams:
        poll.register(stream.source, select.POLLIN)
    while by_source:
        for source, _ in poll.poll():
            stream = by_source[source]
            content = os.read(source, CHUNK)
            if content:
                if not as_json:
                    _write(stream.target, content)
                completed = lines[source].feed(content)
            else:
                poll.unregister(source)
                del by_source[source]
                completed = lines[source].rest()
            session_id = session.read()
            for line in completed:
                found = record(stream.name, line, session_id=session_id)
                if records is not None:
                    records.append(found)
                if as_json:
                    _write(stream.target, f"{found}\n".encode(errors="backslashreplace"))


def _write(target: int, content: bytes) -> None:
    try:
        while content:
            content = content[os.write(target, content) :]
    except OSError:
        return  # nobody reads there any more; the lane still does
