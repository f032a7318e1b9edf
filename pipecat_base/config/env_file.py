"""The ``.env`` file in the bot's folder, for development."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pipecat_base.config import environment
from pipecat_base.errors import SettingsInvalid

if TYPE_CHECKING:
    from dotenv.parser import Binding

NAME = ".env"


class EnvFile:
    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._started_with = environment.read()
        self._values: dict[str, str] = {}
        self.names: Mapping[str, str] = {}  # to their locations: ``.env:3``
        self.warnings: tuple[str, ...] = ()
        self.differing: frozenset[str] = frozenset()  # changed by the last reading

    def read(self) -> None:
        """Replace the variables of the last reading; variables of the environment win, even empty ones."""
        from dotenv import dotenv_values
        from dotenv.parser import parse_stream

        try:
            # Not is_file(): password managers provide a FIFO.
            text = self._path.read_text(encoding="utf-8-sig") if self._path.exists() and not self._path.is_dir() else ""
        except UnicodeDecodeError:
            raise SettingsInvalid([f"{self._path}: not UTF-8; save it in this encoding"]) from None
        except OSError as error:
            raise SettingsInvalid([f"{self._path}: cannot be read ({error.strerror})"]) from None
        if "\0" in text:
            raise SettingsInvalid([f"{self._path}: holds a NUL character; save it as text in UTF-8"])
        before = self._values
        environment.remove(before)
        with _silent():
            found = dotenv_values(stream=io.StringIO(text))
        self._values = {n: value for n, value in found.items() if value is not None and n not in self._started_with}
        environment.add(self._values)
        bindings = list(parse_stream(io.StringIO(text)))
        self.names = {b.key: _location(b) for b in bindings if b.key in self._values}
        self.warnings = tuple(
            f"{_location(b)}: not a variable (NAME=value); it is left out" for b in bindings if b.error
        )
        self.differing = frozenset(n for n in {*before, *self._values} if before.get(n) != self._values.get(n))


def _location(binding: Binding) -> str:
    text = binding.original.string
    blank = text[: len(text) - len(text.lstrip())]
    return f"{NAME}:{binding.original.line + blank.count(chr(10))}"


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    # Without dotenv's own warnings, which do not name the file.
    dotenv_logger = logging.getLogger("dotenv.main")
    dotenv_logger.disabled = True
    try:
        yield
    finally:
        dotenv_logger.disabled = False
