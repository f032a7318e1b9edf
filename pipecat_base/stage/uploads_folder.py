"""Uploads on this machine's disk, where the bot has no storage of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from typing import Any

from pipecat.utils import file_storage

LocalFileStorage: Any = file_storage.LocalFileStorage
SCHEME = "pipecat:"
"""Of its URLs, as pipecat's own have it."""


class UploadsFolder(LocalFileStorage):  # type: ignore[misc]
    """pipecat's, which keeps every file until it is deleted: whose file is whose is known where it was taken.

    pipecat's own default keeps ten files in all, so that one session's uploads delete another's.
    """

    max_loose_files = 100
    """Of no session; then the oldest goes."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder, max_files=0)
        self._path = folder

    async def save(self, filename: str, contents: bytes) -> str:
        """As pipecat's; a disk that is full keeps no part of the file."""
        name = uuid.uuid4().hex
        await asyncio.to_thread(_write, self._path, name, contents)
        return f"{SCHEME}{name}"


def _write(folder: str, name: str, contents: bytes) -> None:
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, name)
    try:
        with open(path, "wb") as file:
            file.write(contents)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
