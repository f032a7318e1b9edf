"""Refuses paths that a guard, a route and a proxy could read differently.

Routes and guards use the decoded path. A proxy in front may not decode it, or may normalize it first (RFC 3986 section
6.2.2), so an ambiguous path is answered with 400 before any guard sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote_to_bytes

from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import Scope

from pipecat_base.errors import Malformed

LINE_OR_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
SEPARATOR = re.compile(r"[/\\]")
ENCODED_SLASH = re.compile(b"%2f", re.IGNORECASE)
SLASH_MARK = "\0"  # stands for an encoded slash while routes are compared; :func:`check` refuses paths that contain it


def check(raw: bytes) -> None:
    """Raise Malformed for a percent-encoded path that has more than one reading."""
    try:
        path = unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Malformed("The path is not UTF-8.", field="path") from None
    if not raw.startswith(b"/"):
        raise Malformed("The request's target is not a path that begins with a slash.", field="path")
    if LINE_OR_CONTROL.search(path):
        raise Malformed("The path holds a control character.", field="path")
    if "." in path and any(part in (".", "..") for part in SEPARATOR.split(path)):
        raise Malformed("The path holds a dot segment (. or ..).", field="path")


def marked(raw: bytes) -> str | None:
    if not ENCODED_SLASH.search(raw):
        return None
    return unquote_to_bytes(ENCODED_SLASH.sub(SLASH_MARK.encode(), raw)).decode()


def check_slashes(scope: Scope, routes: Iterable[BaseRoute]) -> None:
    """Raise Malformed for a path that one of ``routes`` reads differently when its encoded slashes stay encoded."""
    other = marked(scope["raw_path"])
    if other is not None and any(_reading(r, scope, scope["path"]) != _reading(r, scope, other) for r in routes):
        raise slash_leads_elsewhere()


def _reading(route: BaseRoute, scope: Scope, path: str) -> dict[str, str] | None:
    """Path parameters, with marks as slashes; None where the route does not match."""
    match, found = route.matches({**scope, "path": path})
    if match is Match.NONE:
        return None
    return {name: str(value).replace(SLASH_MARK, "/") for name, value in found.get("path_params", {}).items()}


def slash_leads_elsewhere() -> Malformed:
    return Malformed("An encoded slash (%2F) in the path leads elsewhere: write it as /.", field="path")


class PathSet:
    """Decoded paths, and with ``below`` everything under them, matched exactly as Starlette matches routes."""

    def __init__(self, paths: Sequence[str], *, below: bool = False) -> None:
        patterns = [*paths, *(f"{path}/{{rest:path}}" for path in paths if below)]
        self._patterns = [compile_path(pattern)[0] for pattern in patterns]

    def __contains__(self, path: str) -> bool:
        return any(pattern.match(path) for pattern in self._patterns)

    def check_slashes(self, raw: bytes) -> None:
        """Raise Malformed for a path that is in the set only with, or only without, its slashes decoded."""
        other = marked(raw)
        if other is not None and (other in self) != (other.replace(SLASH_MARK, "/") in self):
            raise slash_leads_elsewhere()
