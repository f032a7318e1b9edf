"""Which extra of pipecat-ai brings a module, by the installed pipecat's own metadata."""

from __future__ import annotations

import importlib.metadata
import re
from types import TracebackType

DISTRIBUTION = "pipecat-ai"
PACKAGE = "pipecat"


def wanted(missing: ImportError) -> str | None:
    """The extra that brings what a module of pipecat's could not import; None where no module of pipecat's asked.

    A requirement names what to install and not what is then imported (``deepgram-sdk``, ``deepgram``). So the module
    that asked counts too: ``pipecat/services/deepgram/stt.py`` needs the extra ``deepgram``.
    """
    asked = _innermost(missing.__traceback__)
    if asked is None or missing.name is None:
        return None
    extras = _extras()
    module = _normal(missing.name)
    brings = [extra for extra, needs in extras.items() if any(_starts(module, need) for need in needs)]
    named = [extra for extra in extras if f"-{extra}-" in f"-{asked}-"]
    if named:
        found = max(named, key=len)
        return next((extra for extra in brings if extra.startswith(f"{found}-")), found)
    return brings[0] if brings else None


def _innermost(trace: TracebackType | None) -> str | None:
    """The name of pipecat's module whose import failed, in normal form; None where it is another package's."""
    while trace is not None and trace.tb_next is not None:  # Python leaves its import system's frames out of it
        trace = trace.tb_next
    name = "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))
    return _normal(name) if name.partition(".")[0] == PACKAGE else None


def _extras() -> dict[str, list[str]]:
    """What each extra needs, in normal form; empty where pipecat-ai has no metadata."""
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {extra: [] for extra in metadata.get_all("Provides-Extra") or ()}
    for requirement in metadata.get_all("Requires-Dist") or ():
        match = re.match(r"([\w.-]+).*;.*\bextra\s*==\s*['\"]([^'\"]+)", requirement)
        if match is not None:
            found.setdefault(match[2], []).append(_normal(match[1]))
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _starts(name: str, words: str) -> bool:
    return name == words or name.startswith(f"{words}-")
