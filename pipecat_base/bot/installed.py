"""Is it installed? Found by looking at files: nothing is imported for an answer, so that a start costs nothing."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

WEBRTC = ("aiortc", "pipecat.transports.smallwebrtc.connection")
WHATSAPP = (*WEBRTC, "pipecat.transports.whatsapp.api")
DAILY = ("daily", "pipecat")
"""Not a module of pipecat's transport: older versions have it elsewhere."""
LIVEKIT = ("livekit",)
MOQ = ("moq", "cryptography")
"""What pipecat's transports are built on."""
NO_WEBRTC = "WebRTC is not installed here: pip install pipecat-ai[webrtc]."


def location(module: str) -> str | None:
    """The file of a module, or the folder of a package without one; None where it is not installed."""
    top, *rest = module.split(".")
    folders, origin = _top(top)
    if not rest:
        return origin or next(iter(folders), None)
    for folder in folders:
        path = os.path.join(folder, *rest)
        for candidate in (f"{path}.py", os.path.join(path, "__init__.py")):
            if os.path.isfile(candidate):
                return candidate
    return None


def has(*modules: str) -> bool:
    """Whether all of them are there."""
    return first_missing(modules) is None


def first_missing(modules: Sequence[str]) -> str | None:
    """The first that is not there: its package, where that is missing as a whole."""
    for module in modules:
        if location(module) is None:
            top = module.partition(".")[0]
            return top if location(top) is None else module
    return None


def folder(package: str) -> str | None:
    """The folder of a package."""
    folders, _ = _top(package)
    return next(iter(folders), None)


def defines(module: str, name: str) -> bool:
    """Whether the module's source has a class of this name."""
    file = location(module)
    if file is None:
        return False
    with open(file, encoding="utf-8") as source:
        return f"class {name}" in source.read()


def _top(package: str) -> tuple[list[str], str | None]:
    """Folders and file of a package, or of a module that is in none."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return [], None
    if spec is None:
        return [], None
    return list(spec.submodule_search_locations or []), spec.origin
