"""Imported source files of the bot's project."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from pipecat_base.logs import tracebacks


def mentions(project: str, pattern: bytes) -> bool:
    """Search the imported source files of the project, so that slow imports are made early for bots that want them."""
    return any(matches(file, pattern) for file in sources(project))


def sources(project: str) -> list[str]:
    """The imported source files of the project."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    return [file for file in files if file and tracebacks.is_users(file, project)]


def matches(file: str, pattern: bytes) -> bool:
    try:
        return re.search(pattern, Path(file).read_bytes()) is not None
    except OSError:
        return False
