"""The process's environment; no other module reads or changes it."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Collection, Iterable, Iterator, Mapping

from pipecat_base.config.container_env import BOM, corrected

ENV_START = 50  # field of /proc/PID/stat with the address of the environment block, counted from 1
PIPECAT_SETUP_FILES = "PIPECAT_SETUP_FILES"
PR_SET_DUMPABLE = 4


def read() -> Mapping[str, str]:
    return dict(os.environ)


def add(variables: Mapping[str, str]) -> None:
    os.environ.update(variables)


def replace(variables: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(variables)


def correct(ours: Collection[str]) -> None:
    """Undo what ``docker run --env-file`` and editors add, for the bot too."""
    variables = corrected(os.environ, ours)
    if variables != os.environ:
        replace(variables)


def add_unless_set(variables: Mapping[str, str]) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def remove(names: Iterable[str]) -> None:
    for name in names:
        os.environ.pop(name, None)


def scrub(names: Collection[str]) -> None:
    """Remove variables, also from ``/proc/PID/environ`` (proc(5))."""
    remove(names)
    with contextlib.suppress(OSError, ValueError, IndexError):
        with open("/proc/self/environ", "rb") as file:
            block = file.read()
        with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
            begin = int(file.read().rpartition(")")[2].split()[ENV_START - 3])
        at = 0
        for entry in block.split(b"\0"):
            name, equals, value = entry.partition(b"=")
            if name.decode(errors="replace").removeprefix(BOM) in names and value:
                ctypes.memset(begin + at + len(name + equals), ord("x"), len(value))
            at += len(entry) + 1


def hide_from_other_processes(hides: bool = True) -> None:
    """Deny processes of the same user this one's memory and environment (PR_SET_DUMPABLE, prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, int(not hides), 0, 0, 0)


def append_setup_file(path: str) -> None:
    listed = [part for part in os.environ.get(PIPECAT_SETUP_FILES, "").split(os.pathsep) if part]
    if path not in listed:
        os.environ[PIPECAT_SETUP_FILES] = os.pathsep.join([*listed, path])


@contextlib.contextmanager
def without_default_log_sink() -> Iterator[None]:
    """Around loguru's first import: makes the launcher's own sink number 0, which bots remove by number."""
    before = os.environ.get("LOGURU_AUTOINIT")
    os.environ["LOGURU_AUTOINIT"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["LOGURU_AUTOINIT"]
        else:
            os.environ["LOGURU_AUTOINIT"] = before
