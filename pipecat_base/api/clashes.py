"""Routes of the bot that the launcher's own hide."""

from __future__ import annotations

import re
from collections.abc import Sequence

from starlette.convertors import CONVERTOR_TYPES
from starlette.routing import BaseRoute, Match, Mount

from pipecat_base.logs.logger import logger

WEBSOCKET = "WebSocket"
PARAMETER = re.compile(r"{\w+(?::(\w+))?}")


def warn_of_clashes(ours: Sequence[BaseRoute], theirs: Sequence[BaseRoute]) -> None:
    """Warn of routes of the bot that match requests of ours."""
    # A mount, such as static files at "/", matches every path below it: no clash.
    theirs = [route for route in theirs if not is_mount(route)]
    for route in ours:
        path: str = getattr(route, "path", "")
        for method in sorted(_methods(route) - {"HEAD"}):
            taken = next((their for their in theirs if _is_hidden(their, path, method)), None)
            if taken is not None:
                name = getattr(taken, "name", None) or "route"
                logger.warning(f"{path} is reserved for the launcher ({method}): your {name}() is not served there")


def is_mount(route: BaseRoute) -> bool:
    return isinstance(getattr(route, "original_route", route), Mount)


def _methods(route: BaseRoute) -> set[str]:
    return set(getattr(route, "methods", None) or {WEBSOCKET})


def _is_hidden(theirs: BaseRoute, path: str, method: str) -> bool:
    if "{" not in path:
        kind = "websocket" if method == WEBSOCKET else "http"
        scope = {"type": kind, "method": method, "path": path, "root_path": "", "headers": [], "path_params": {}}
        return theirs.matches(scope)[0] is Match.FULL
    segments = getattr(theirs, "path", "").split("/")[1:]
    # A page for every other path ("/{path:path}") is meant to have only what is left.
    return (
        bool(segments)
        and not _is_rest(segments[0])
        and method in _methods(theirs)
        and _meet(path.split("/")[1:], segments)
    )


def _meet(some: list[str], others: list[str]) -> bool:
    """True if a path matches both patterns. What follows a ``{name:path}`` is not compared."""
    if not some or not others:
        return some == others
    if _is_rest(some[0]) or _is_rest(others[0]):
        return True
    return _segments_meet(some[0], others[0]) and _meet(some[1:], others[1:])


def _is_rest(segment: str) -> bool:
    return any(kind == "path" for kind in PARAMETER.findall(segment))


def _segments_meet(one: str, other: str) -> bool:
    if PARAMETER.search(one) and PARAMETER.search(other):
        return True
    return _matches(one, other) or _matches(other, one)


def _matches(pattern: str, literal: str) -> bool:
    parts = PARAMETER.split(pattern)  # literals, and between them the parameters' kinds
    regex = [_of_kind(part) if number % 2 else re.escape(part) for number, part in enumerate(parts)]
    return re.fullmatch("".join(regex), literal) is not None


def _of_kind(kind: str | None) -> str:
    return CONVERTOR_TYPES[kind].regex if kind in CONVERTOR_TYPES else "[^/]+"
