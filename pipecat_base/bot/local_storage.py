"""Uploads on this machine's disk, where the bot has no storage of its own.

A file's name tells whose it is: a session's begins with twelve times f, one of no session with twelve zeros. Each
process that uses the folder holds a shared lock on it (flock(2)), so that a start knows whether any other one does.
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
SCHEME = "pipecat:"
"""Of its URLs, as pipecat's own have it."""
OF_SESSION, OF_NO_SESSION = "f" * 12, "0" * 12
"""What names begin with."""
MAX_LOOSE_FILES = 100
"""Of no session, in the folder; then the oldest goes."""


class UploadsFolder(LocalFileStorage):  # type: ignore[misc]
    """pipecat's, which keeps every file until it is deleted: whose file is whose is known where it was taken.

    pipecat's own default keeps ten files in all, so that one session's uploads delete another's. Files that this class
    has not made are never deleted.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder, max_files=0)
        self._path = folder
        self._lock: int | None = None
        self._changing = threading.Lock()

    async def save(self, filename: str, contents: bytes) -> str:
        """A session's file. As pipecat's; a disk that is full keeps no part of the file."""
        return await asyncio.to_thread(self._save, OF_SESSION, contents)

    async def save_loose(self, filename: str, contents: bytes) -> str:
        """A file of no session. The newest in the folder are kept, whichever launcher has stored them."""
        return await asyncio.to_thread(self._save, OF_NO_SESSION, contents)

    async def sweep(self) -> None:
        """Delete what launchers that have ended have left of their sessions, unless another one uses the folder."""
        await asyncio.to_thread(self._sweep)

    async def close(self) -> None:
        """Use the folder no more."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _save(self, prefix: str, contents: bytes) -> str:
        private_files.make_folder(self._path)
        with self._changing:
            self._use()
            if prefix == OF_NO_SESSION:
                by_age = sorted(self._files_of(OF_NO_SESSION), key=_age)
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
        """Tell other processes that this one uses the folder; waits while one of them sweeps it."""
        if self._lock is None:
            self._lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # no locks there: then no start sweeps, either
                fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _sweep(self) -> None:
        with self._changing, contextlib.suppress(OSError):
            lock = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._delete(self._files_of(OF_SESSION))
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
    """The oldest first; one that has just been deleted is as good as the oldest."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime_ns, path
    return 0, path
