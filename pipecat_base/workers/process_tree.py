"""Processes that a worker's bot has started, as proc(5) lists them."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class ProcessEntry:
    parent: int
    group: int


def list_processes() -> dict[int, ProcessEntry]:
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            # It has ended meanwhile, or the line is not as in proc_pid_stat(5).
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name comes before, in parentheses, and may hold any character.
                fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
                found[int(entry)] = ProcessEntry(int(fields[1]), int(fields[2]))
    return found


def family(pid: int, known: Mapping[int, ProcessEntry]) -> set[int]:
    return descendants({pid} | {member for member, entry in known.items() if entry.group == pid}, known)


def descendants(pids: Iterable[int], known: Mapping[int, ProcessEntry]) -> set[int]:
    found = set(pids)
    while more := {member for member, entry in known.items() if entry.parent in found} - found:
        found |= more
    return found


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
