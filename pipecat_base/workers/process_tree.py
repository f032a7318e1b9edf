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
class Relation:
    """Parent and process group of one process."""

    parent: int
    group: int


def relations() -> dict[int, Relation]:
    """All processes that this one can see, by their ids."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            # Gone again, or no line as proc_pid_stat(5) has it.
            with contextlib.suppress(OSError, ValueError, IndexError):
                # The name comes before, in parentheses, and may hold any character.
                fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
                found[int(entry)] = Relation(int(fields[1]), int(fields[2]))
    return found


def family(pid: int, known: Mapping[int, Relation]) -> set[int]:
    """A worker, its process group, and the descendants of both."""
    return descendants({pid} | {member for member, relation in known.items() if relation.group == pid}, known)


def descendants(pids: Iterable[int], known: Mapping[int, Relation]) -> set[int]:
    """These processes, and all that descend from them."""
    found = set(pids)
    while more := {member for member, relation in known.items() if relation.parent in found} - found:
        found |= more
    return found


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent ends (PR_SET_CHILD_SUBREAPER, prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
