"""Uploads on this machine's disk, where the bot has no storage of its own.

A file's name tells whose it is. It begins with zeros for a file of no session, and with the number of the process that
has stored it for a session's. A process keeps a lock on a file with its number, so that others know that it lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import secrets
import threading
from collections.abc import Iterator
from typing import Any

from pipecat.utils import file_storage

from pipecat_base import private
from pipecat_base.logs import logger

LocalFileStorage: Any = file_storage.LocalFileStorage
SCHEME = "pipecat:"
"""Of its URLs, as pipecat's own have it."""
NO_SESSION = "0" * 12
LOCK = re.compile(r"\.uploads-([0-9a-f]{12})\.lock")
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
        self._owner: str | None = None
        self._lock = -1
        self._changing = threading.Lock()

    async def save(self, filename: str, contents: bytes) -> str:
        """A session's file. As pipecat's; a disk that is full keeps no part of the file."""
        return await asyncio.to_thread(self._save_of_session, contents)

    async def save_loose(self, filename: str, contents: bytes) -> str:
        """A file of no session. The newest in the folder are kept, whichever launcher has stored them."""
        return await asyncio.to_thread(self._save_loose, contents)

    async def sweep(self) -> None:
        """Delete what processes that have ended have left of their sessions."""
        await asyncio.to_thread(self._sweep)

    async def close(self) -> None:
        """Delete what is left of this process's sessions."""
        await asyncio.to_thread(self._disown)

    def _save_of_session(self, contents: bytes) -> str:
        private.make_folder(self._path)
        return self._write(self._own(), contents)

    def _save_loose(self, contents: bytes) -> str:
        private.make_folder(self._path)
        with self._changing:
            by_age = sorted(self._files_of(NO_SESSION), key=_age)
            for path in by_age[: max(0, len(by_age) - MAX_LOOSE_FILES + 1)]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            return self._write(NO_SESSION, contents)

    def _write(self, owner: str, contents: bytes) -> str:
        name = owner + secrets.token_hex(10)
        path = os.path.join(self._path, name)
        try:
            with open(private.open_file(path, os.O_WRONLY | os.O_EXCL), "wb") as file:
                file.write(contents)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return f"{SCHEME}{name}"

    def _own(self) -> str:
        """This process's number: others see it once it is locked."""
        with self._changing:
            if self._owner is None:
                owner = secrets.token_hex(6)
                path = self._lock_of(owner)
                self._lock = private.open_file(f"{path}.new", os.O_RDWR | os.O_EXCL)
                with contextlib.suppress(OSError):  # no locks there: then nobody gets one, and no file is swept
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(f"{path}.new", path)
                self._owner = owner
            return self._owner

    def _disown(self) -> None:
        if self._owner is not None:
            self._delete_of(self._owner)
            os.close(self._lock)
            self._owner = None

    def _sweep(self) -> None:
        for name in _listed(self._path):
            found = LOCK.fullmatch(name)
            if found is None or found[1] == self._owner:
                continue
            with contextlib.suppress(OSError):
                lock = os.open(os.path.join(self._path, name), os.O_RDWR | os.O_NOFOLLOW)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    self._delete_of(found[1])
                finally:
                    os.close(lock)

    def _delete_of(self, owner: str) -> None:
        """The lock goes last: files of a number without one belong to no launcher."""
        try:
            for path in [*self._files_of(owner), self._lock_of(owner)]:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        except OSError as error:
            logger.warning(f"PIPECAT_UPLOADS_FOLDER: a file was not deleted: {error.strerror}")

    def _files_of(self, owner: str) -> Iterator[str]:
        pattern = re.compile(owner + r"[0-9a-f]{20}")
        return (os.path.join(self._path, name) for name in _listed(self._path) if pattern.fullmatch(name))

    def _lock_of(self, owner: str) -> str:
        return os.path.join(self._path, f".uploads-{owner}.lock")


def _listed(folder: str) -> list[str]:
    with contextlib.suppress(OSError):
        return os.listdir(folder)
    return []


def _age(path: str) -> tuple[int, str]:
    """The oldest first; one that has just been deleted is as good as the oldest."""
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime_ns, path
    return 0, path
