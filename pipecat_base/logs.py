"""Logs: one format, the session's id on every line, and nothing of the bot's own taken away.

The launcher has one console sink. Sinks that the bot adds while it is imported stay. Two things that happen during
that import would spoil the console, and are mended after it:

- ``logger.remove(0); logger.add(sys.stderr, level="DEBUG")`` stands at the top of most pipecat examples, and
  importing pipecatcloud does the like. A plain console sink that took the place of ours is dropped again, or every
  line would come without its session. One with a format of its own is what the user wants to read: it replaces ours.
- ``logging.basicConfig()`` puts a second handler on the console. Its level is kept, its handler replaced by ours. A
  handler whose formatter is not the standard library's own (JSON) stays instead of ours.
"""

from __future__ import annotations

import contextlib
import datetime
import inspect
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat_base import environment

with environment.without_default_log_sink():
    # Every module takes the logger from here, so that this is the first import of loguru.
    from loguru import logger as logger

if TYPE_CHECKING:
    from loguru import Message, Record

FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} | {extra[session_id]} - {message}"
NO_SESSION = "NONE"
LOG_FILE = "bot.jsonl"

# uvicorn writes request lines, and with them ?body= and ?token=, to these.
_REQUEST_LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi")

_DENIED = "ASGI callable returned without completing handshake."


@dataclass(frozen=True)
class _Added:
    """A sink that the bot added while it was imported."""

    console: bool
    plain: bool
    """Neither a format, nor a filter, nor JSON: the boilerplate of examples."""


class _Watch:
    """Sees what the bot's import does to loguru's sinks."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._add, self._remove = logger.add, logger.remove
        self.added: dict[int, _Added] = {}
        self.removed: set[int | None] = set()

    def add(self, sink: Any, **options: Any) -> int:
        """As ``logger.add``; a plain console sink in place of ours has our format from its first line on."""
        console, plain = _is_console(sink), not any(options.get(name) for name in ("format", "filter", "serialize"))
        if console and plain and self._logs._console in self.removed:
            sink_id = self._logs._add_console(self._add)
        else:
            sink_id = self._add(sink, **options)
        self.added[sink_id] = _Added(console, plain)
        return sink_id

    def remove(self, handler_id: int | None = None) -> None:
        """As ``logger.remove``."""
        self._remove(handler_id)
        if handler_id is None:
            self.removed |= {self._logs._console, self._logs._file}
            self.added.clear()
        else:
            self.removed.add(handler_id)
            self.added.pop(handler_id, None)


class Logs:
    """Owns the launcher's sinks.

    Args:
        level: One of settings.LOG_LEVELS; NONE is silence.
        folder: Where to also write JSON lines, or None.
    """

    def __init__(self, level: str, folder: str | None = None) -> None:
        self._level = level
        self._folder = folder
        self._console: int | None = None
        self._file: int | None = None
        self._json: JsonLines | None = None
        self._handler = LoguruHandler()

    def configure(self) -> None:
        """Make loguru's console sink ours, and send the standard library's logging there."""
        logger.remove()
        self._console = self._add_console()
        if self._level != "NONE":
            self._open_file()
        root = logging.getLogger()
        root.setLevel(self._standard_level())
        # Not yet a handler of the root: basicConfig() in the bot does nothing once there is one, its level= included.
        logging.lastResort = self._handler
        self._quieten()
        for name in _REQUEST_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
            # Levels are reset by a bot's dictConfig(); filters are not.
            logging.getLogger(name).addFilter(_is_for_people)

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Around the bot's import, which may set up logging of its own: afterwards our sinks are there again."""
        watch = _Watch(self)
        with _replaced(watch.add, watch.remove):
            yield
        self._restore(watch)
        self._adopt_standard_logging()

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Around an import of our own, in the middle of sessions: what it does to the sinks is left out."""
        thread, add, remove = threading.get_ident(), logger.add, logger.remove

        def add_elsewhere(sink: Any, **options: Any) -> int:
            return -1 if threading.get_ident() == thread else int(add(sink, **options))

        def remove_elsewhere(handler_id: int | None = None) -> None:
            if threading.get_ident() != thread:
                remove(handler_id)

        with _replaced(add_elsewhere, remove_elsewhere):
            yield

    def _restore(self, watch: _Watch) -> None:
        if self._json is not None and self._file in watch.removed:
            self._file = self._add(self._json.write, "{message}")
        if self._console is None or self._console not in watch.removed:
            return
        consoles = {sink_id: sink for sink_id, sink in watch.added.items() if sink.console}
        if not all(sink.plain for sink in consoles.values()):
            self._console = None
            return
        for sink_id in consoles:
            _remove(sink_id)
        self._console = self._add_console()

    def _add_console(self, add: Any = None) -> int:
        if self._level == "NONE":
            # Silent, but there: bots remove sink 0, which fails when there is none.
            return int((add or logger.add)(_nowhere, level=sys.maxsize))
        return self._add(sys.stderr, _console_format, add)

    def _add(self, sink: Any, format_: Any, add: Any = None) -> int:
        # diagnose would print the values of variables, secrets too, beside the traceback.
        options: dict[str, Any] = {"level": self._level, "backtrace": False, "diagnose": False}
        return int((add or logger.add)(sink, format=format_, **options))

    def _open_file(self) -> None:
        if self._folder is None:
            return
        path = os.path.join(self._folder, LOG_FILE)
        try:
            self._json = JsonLines(path)
        except OSError as error:
            logger.error(f"PCC_LOG_DIR: {path} cannot be written: {error.strerror}")
        else:
            self._file = self._add(self._json.write, "{message}")

    def _quieten(self) -> None:
        # Every candidate pair of every call, at INFO.
        if self._level != "TRACE" and logging.getLogger("aioice").level == logging.NOTSET:
            logging.getLogger("aioice").setLevel(logging.WARNING)

    def _standard_level(self) -> int:
        # DEBUG of every library would drown the bot's own lines; a bot that wants it sets the root's level.
        levels = {"TRACE": logging.DEBUG, "NONE": logging.CRITICAL + 1, "WARNING": logging.WARNING}
        return {**levels, "ERROR": logging.ERROR}.get(self._level, logging.INFO)

    def _adopt_standard_logging(self) -> None:
        root = logging.getLogger()
        consoles = [h for h in root.handlers if type(h) is logging.StreamHandler and _is_console(h.stream)]
        if any(type(console.formatter) not in (type(None), logging.Formatter) for console in consoles):
            return  # JSON, say: what the user wants to read there
        if any(_is_bridge(handler) for handler in root.handlers if handler is not self._handler):
            return
        for console in consoles:
            root.removeHandler(console)
        if self._handler not in root.handlers:
            root.addHandler(self._handler)


class LoguruHandler(logging.Handler):
    """Passes the standard library's records on to loguru, in the context (and so with the session) of the caller."""

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging for each record."""
        if isinstance(getattr(record, "extra", None), dict):
            return  # it came from loguru, through a sink of the bot's that is a logging.Handler
        try:
            level: str | int = logger.level(record.levelname).name
        except ValueError:
            level = record.levelno

        def patch(target: Record) -> None:
            target["name"], target["function"], target["line"] = record.name, record.funcName, record.lineno

        try:
            message = record.getMessage()
        except Exception:
            self.handleError(record)
            return
        # The message is an argument, not the format: its braces are the user's.
        logger.patch(patch).opt(exception=record.exc_info).log(level, "{}", message)


class JsonLines:
    """Writes ``bot.jsonl``: one JSON object a log line, with ``@timestamp, stream, level, session_id, line``."""

    def __init__(self, path: str) -> None:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        self._file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)  # noqa: SIM115

    def write(self, message: Message) -> None:
        """Called by loguru for each line; the traceback of an exception is part of ``line``."""
        record = message.record
        entry = {
            "@timestamp": record["time"].astimezone(datetime.UTC).isoformat(timespec="milliseconds"),
            "stream": "stderr",
            "level": record["level"].name,
            "session_id": record["extra"].get("session_id", NO_SESSION),
            "line": str(message).rstrip("\n"),
        }
        self._file.write(json.dumps(entry, ensure_ascii=False) + "\n")


def _console_format(record: Record) -> str:
    # Not loguru's configured extra: a bot that calls logger.configure(extra=...) would take it away.
    record["extra"].setdefault("session_id", NO_SESSION)
    return FORMAT + "\n{exception}"


def _is_for_people(record: logging.LogRecord) -> bool:
    # uvicorn says the latter of every WebSocket that was refused with an HTTP response, which is no error.
    return record.levelno >= logging.WARNING and record.msg != _DENIED


def _nowhere(message: Message) -> None:
    pass


def _remove(sink_id: int) -> bool:
    try:
        logger.remove(sink_id)
    except ValueError:
        return False
    return True


@contextlib.contextmanager
def _replaced(add: Callable[..., int], remove: Callable[..., None]) -> Iterator[None]:
    logger.add, logger.remove = add, remove  # type: ignore[method-assign]
    try:
        yield
    finally:
        del logger.add, logger.remove


def _is_bridge(handler: logging.Handler) -> bool:
    # The InterceptHandler of loguru's documentation: the bot sends logging to loguru by itself. Its emit() uses the
    # logger; that the module it stands in imports the logger says nothing.
    emit = type(handler).emit
    if not inspect.isfunction(emit):
        return False
    return any(emit.__globals__.get(name) is logger for name in emit.__code__.co_names)


def _is_console(sink: Any) -> bool:
    return any(sink is stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
