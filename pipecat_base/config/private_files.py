"""Files and folders that other users of the machine cannot read: callers' words and files are in them."""

from __future__ import annotations

import contextlib
import os

FILE = 0o600
FOLDER = 0o700


def make_folder(path: str) -> None:
    """Make a folder and those above it; one that is there keeps its mode.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    above = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(above):
        make_folder(above)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, FOLDER)
    if not os.path.isdir(path):
        raise NotADirectoryError(20, "Not a directory", path)


def open_file(path: str, flags: int, mode: int = FILE) -> int:
    """A descriptor of a file that is made if it is not there.

    Raises:
        OSError: it cannot be opened.
    """
    return os.open(path, flags | os.O_CREAT, mode)
