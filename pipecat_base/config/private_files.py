"""Files and folders that other users of the machine cannot read: they hold callers' data."""

from __future__ import annotations

import contextlib
import os

FILE = 0o600
FOLDER = 0o700


def make_folder(path: str) -> None:
    # Not os.makedirs(): its mode is not for parents.
    above = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(above):
        make_folder(above)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, FOLDER)
    if not os.path.isdir(path):
        raise NotADirectoryError(20, "Not a directory", path)


def open_file(path: str, flags: int, mode: int = FILE) -> int:
    return os.open(path, flags | os.O_CREAT, mode)
