"""Installed packages and modules, found by looking at files: nothing is imported, so that a start costs nothing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from collections.abc import Sequence
from types import TracebackType

PIPECAT = "pipecat-ai"
# The modules on which pipecat's transports are built. Older versions have the one for Daily elsewhere.
WEBRTC = ("aiortc", "pipecat.transports.smallwebrtc.connection")
WHATSAPP = (*WEBRTC, "pipecat.transports.whatsapp.api")
DAILY = ("daily", "pipecat")
LIVEKIT = ("livekit",)
MOQ = ("moq", "cryptography")
OF_TRANSPORTS = {"webrtc": WEBRTC, "daily": DAILY, "livekit": LIVEKIT, "moq": MOQ}
NO_WEBRTC = "WebRTC is not installed here: pip install pipecat-ai[webrtc]."


def location(module: str) -> str | None:
    """The file of a module, or the folder of a package without one."""
    top, *rest = module.split(".")
    folders, origin = _find(top)
    if not rest:
        return origin or next(iter(folders), None)
    for path in (os.path.join(folder, *rest) for folder in folders):
        for candidate in (f"{path}.py", os.path.join(path, "__init__.py")):
            if os.path.isfile(candidate):
                return candidate
    return None


def has(*modules: str) -> bool:
    return first_missing(modules) is None


def first_missing(modules: Sequence[str]) -> str | None:
    """The first module that is missing, or its package if that is missing as a whole."""
    for module in modules:
        if location(module) is None:
            top = module.partition(".")[0]
            return top if location(top) is None else module
    return None


def folder(package: str) -> str | None:
    return next(iter(_find(package)[0]), None)


def defines(module: str, class_name: str) -> bool:
    file = location(module)
    if file is None:
        return False
    with open(file, encoding="utf-8") as source:
        return f"class {class_name}" in source.read()


def _find(package: str) -> tuple[list[str], str | None]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    return ([], None) if spec is None else (list(spec.submodule_search_locations or []), spec.origin)


def version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def session_info(image_version: str | None) -> dict[str, str]:
    """Fields of the platform's event ``session_info``."""
    found = {
        "python_version": platform.python_version(),
        "arch": platform.machine(),
        "image_version": image_version,
        "pipecat_version": version(PIPECAT),
    }
    return {name: value for name, value in found.items() if value is not None}


def missing_extra(error: ImportError) -> str | None:
    """The extra of pipecat-ai that a failed import within pipecat needs.

    A requirement's name (``deepgram-sdk``) may differ from the module's (``deepgram``). So the importing module counts
    too: ``pipecat/services/deepgram/stt.py`` needs the extra ``deepgram``.
    """
    importer = _innermost_module(error.__traceback__)
    if importer.partition(".")[0] != "pipecat" or error.name is None:
        return None
    extras = _extras()
    module = normalized(error.name)
    bringing = [extra for extra, needs in extras.items() if any(f"{module}-".startswith(f"{need}-") for need in needs)]
    named = [extra for extra in extras if f"-{extra}-" in f"-{normalized(importer)}-"]
    if named:
        longest = max(named, key=len)
        return next((extra for extra in bringing if extra.startswith(f"{longest}-")), longest)
    return next(iter(bringing), None)


def _innermost_module(trace: TracebackType | None) -> str:
    while trace is not None and trace.tb_next is not None:  # Python omits the frames of its import system
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__"))


def _extras() -> dict[str, list[str]]:
    try:
        metadata = importlib.metadata.metadata(PIPECAT)
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {extra: [] for extra in metadata.get_all("Provides-Extra") or ()}
    for requirement in metadata.get_all("Requires-Dist") or ():
        match = re.match(r"([\w.-]+).*;.*\bextra\s*==\s*['\"]([^'\"]+)", requirement)
        if match is not None:
            found.setdefault(match[2], []).append(normalized(match[1]))
    return found


def normalized(name: str) -> str:
    """A package's name as the package index compares it (PEP 503); a module's, with hyphens for its dots."""
    return re.sub(r"[-_.]+", "-", name).lower()
