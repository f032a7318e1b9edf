"""What sessions run on, as the platform's ``session_info`` event tells it."""

from __future__ import annotations

import contextlib
import platform
from importlib import metadata


def versions(image_version: str | None) -> dict[str, str]:
    """``pipecat_version``, ``python_version``, ``image_version``, ``arch``; without those that are unknown."""
    found = {"python_version": platform.python_version(), "arch": platform.machine()}
    if image_version is not None:
        found["image_version"] = image_version
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["pipecat_version"] = metadata.version("pipecat-ai")
    return found
