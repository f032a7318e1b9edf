"""Uploads on this machine's disk, for a bot without storage of its own.

Each process that uses the folder holds a shared lock on it (flock(2)), so that a start can detect other users.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from pipecat.utils import file_storage

from pipecat_base.config import private_files
from pipecat_base.logs.logger import logger

LocalFileStorage: Any = file_storage.LocalFileStorage
SCHEME = "pipecat:"  # as in pipecat's own URLs
SESSION_PREFIX, LOOSE_PREFIX = "f" * 12, "0" * 12
MAX_LOOSE_FILES = 100


class UploadsFolder(LocalFileStorage):  # type: ignore[misc]
    """pipecat's storage without its limit of ten files, by which one session's uploads delete another's.

    Never deletes files that this class did not write.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, max_files=0)
        self._path = folder
        self._lock: int | None = None
        self._changing = threading.Lock()

    async def save(self, filename: str, contents: bytes) -> str:
        """Store a session's file. On a full disk, no part of it remains."""
        return await asyncio.to_thread(self._save, SESSION_PREFIX, contents)

    async def save_loose(self, filename: str, contents: bytes) -> str:
        """Store a file without a session. The folder keeps the newest, from any launcher."""
        return await asyncio.to_thread(self._save, LOOSE_PREFIX, contents)

    async def sweep(self) -> None:
        """Delete sessions' files of launchers that have ended, unless another launcher uses the folder."""
        await asyncio.to_thread(self._sweep)

    async def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _save(self, prefix: str, contents: bytes) -> str:
        private_files.make_folder(self._path)
        with self._changing:
            self._use()
            if prefix == LOOSE_PREFIX:
                by_age = sorted(self._files_of(LOOSE_PREFIX), key=_age)
                self._delete(by_age[: max(0, len(by_age) - MAX_LOOSE_FILES + 1)])
                return self._write(prefix, contents)
        return self._write(prefix, contents)

    def _write(self, prefix: str, contents: bytes) -> str:
        name = prefix + secrets.token_hex(10)
        path = os.path.join(self._path, name)
        try:
            with open(private_files.open_file(path, os.O_WRONLY | os.O_EXCL), "wb") as file:
                file.write(contents)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return f"{SCHEME}{name}"

    def _use(self) -> None:
        """Lock the folder as in use; waits while another process sweeps it."""
        if self._lock is None:
            self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # a file system without locks, where no start sweeps
                fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _sweep(self) -> None:
        with self._changing, contextlib.suppress(OSError):
            lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._delete(self._files_of(SESSION_PREFIX))
            finally:
                os.close(lock)
            self._use()

    def _delete(self, paths: Iterable[str]) -> None:
        for path in paths:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            except OSError as error:
                logger.warning(f"PIPECAT_UPLOADS_FOLDER: a file was not deleted: {error.strerror}")

    def _files_of(self, prefix: str) -> Iterator[str]:
        pattern = re.compile(prefix + r"[0-9a-f]{20}")
        return (os.path.join(self._path, name) for name in _listed(self._path) if pattern.fullmatch(name))


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _age(path: str) -> tuple[int, str]:
    # A file that was just deleted counts as the oldest.
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime_ns, path
    return 0, path
