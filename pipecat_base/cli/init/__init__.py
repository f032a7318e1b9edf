"""``pipecat-base init``: a project to start from, copied from ``project/``."""

from __future__ import annotations

import contextlib
import shlex
import sys
from importlib.resources import files
from pathlib import Path

NAMES = ("bot.py", "requirements.txt", "Dockerfile", ".dockerignore", ".env.example")
NEXT_STEPS = """\
Next:
{enter}  pip install -r requirements.txt
  pipecat-base dev --reload                          # talk to it: http://localhost:8080

In a container (the Dockerfile's FROM is made by "make image" in a checkout of pipecat-base):
  docker build -t my-bot .
  docker run -p 127.0.0.1:8080:8080 my-bot           # with keys: --env-file .env"""


class NotWritten(Exception):
    """Nothing was written. The text says why, and what to do."""


def main(folder: str) -> int:
    try:
        write(Path(folder))
    except NotWritten as error:
        print(f"pipecat-base init: {error}", file=sys.stderr)
        return 1
    where = "" if folder in ("", ".") else f" to {folder}"
    print(f"Wrote {', '.join(NAMES)}{where}\n")
    print(NEXT_STEPS.format(enter=f"  cd {shlex.quote(folder)}\n" if where else ""))
    return 0


def write(folder: Path) -> None:
    """Write every file of the project, or none; raises NotWritten."""
    with contextlib.ExitStack() as undo:
        try:
            _require_absent(folder)
            _make(folder, undo)
            for name in NAMES:
                content = files(__name__).joinpath("project", name).read_bytes()
                with (folder / name).open("xb") as file:  # "x": another process may write here at the same time
                    undo.callback((folder / name).unlink, missing_ok=True)
                    file.write(content)
        except OSError as error:
            raise NotWritten(
                f"{error.filename or folder}: {error.strerror}. Nothing was written: fix that, or name another folder."
            ) from error
        undo.pop_all()


def _require_absent(folder: Path) -> None:
    present = [name for name in NAMES if (folder / name).is_symlink() or (folder / name).exists()]
    if present:
        there = f"{', '.join(present)} {'is' if len(present) == 1 else 'are'} already in {folder.absolute()}"
        raise NotWritten(f"{there}. Nothing was written: name another folder, or move what is there.")


def _make(folder: Path, undo: contextlib.ExitStack) -> None:
    for path in reversed([folder, *folder.parents]):
        if not path.exists():
            path.mkdir()
            undo.callback(_remove_if_empty, path)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
