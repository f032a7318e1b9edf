"""The user's own frames of a stack."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

MAX_USER_FRAMES = 12

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = tuple({sysconfig.get_path(kind) + os.sep for kind in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_users(filename: str, project: str) -> bool:
    """True for a source file of the project, but not of a virtual environment inside its folder."""
    if filename.startswith("<"):
        return False  # <frozen importlib._bootstrap>, <string>
    path = os.path.abspath(filename)
    if path.startswith(_PACKAGE) or path.startswith(_INSTALLED) or f"{os.sep}site-packages{os.sep}" in path:
        return False
    return path.startswith(os.path.join(os.path.abspath(project), ""))


def describe(filename: str, line: int, function: str, project: str) -> str:
    """``helpers.py:3 in connect: import redis``, with a path relative to the project."""
    where = os.path.relpath(filename, project)
    text = linecache.getline(filename, line).strip()
    scope = "" if function == "<module>" else f" in {function}"
    return f"{where}:{line}{scope}: {text}" if text else f"{where}:{line}{scope}"


def users_frames(trace: TracebackType | None, project: str) -> list[str]:
    return _users(traceback.extract_tb(trace), project)


def frames_of_thread(thread_id: int, project: str) -> list[str]:
    """The user's frames of a running thread, outermost first."""
    return _users(traceback.extract_stack(sys._current_frames().get(thread_id)), project)


def _users(stack: Iterable[traceback.FrameSummary], project: str) -> list[str]:
    frames = [
        describe(frame.filename, frame.lineno or 0, frame.name, project)
        for frame in stack
        if is_users(frame.filename, project)
    ]
    if len(frames) > MAX_USER_FRAMES:
        half = MAX_USER_FRAMES // 2
        frames[half:-half] = [f"... {len(frames) - 2 * half} more ..."]
    return frames


def without_ours(trace: TracebackType | None) -> TracebackType | None:
    """The traceback without the launcher's outermost frames; all of it if there are no others."""
    rest = trace
    while rest is not None and rest.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        rest = rest.tb_next
    return rest or trace


def where_is(frame: FrameType | None, project: str) -> str | None:
    while frame is not None:
        if is_users(frame.f_code.co_filename, project):
            return describe(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, project)
        frame = frame.f_back
    return None


def where_is_suspended(coroutine: Any, project: str) -> str | None:
    """Like :func:`where_is`, for a suspended coroutine: follows what each frame awaits."""
    found = None
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None) or getattr(coroutine, "gi_frame", None)
        if frame is not None and is_users(frame.f_code.co_filename, project):
            found = describe(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name, project)
        coroutine = getattr(coroutine, "cr_await", None) or getattr(coroutine, "gi_yieldfrom", None)
    return found


def where_is_thread(thread_id: int, project: str) -> str | None:
    return where_is(sys._current_frames().get(thread_id), project)
