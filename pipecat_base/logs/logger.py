"""Logs: one format, the session's id on every line, and nothing of the bot's own taken away.

The launcher has one console sink, and with PCC_LOG_DIR another one for :mod:`pipecat_base.logs.jsonl`. Sinks that the
bot adds while it is imported stay. Two things that happen during that import would spoil the console, and are put
right after it:

- ``logger.remove(0); logger.add(sys.stderr, level="DEBUG")`` stands at the top of most pipecat examples, and
  importing pipecatcloud does the like. A plain console sink that took the place of ours is dropped again, or every
  line would come without its session. One with a format of its own is what the user wants to read: it replaces ours.
- ``logging.basicConfig()`` puts a second handler on the console. Its level is kept, its handler replaced by ours. A
  handler whose formatter is not the standard library's own (JSON) stays instead of ours.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from pipecat_base.config import environment
from pipecat_base.logs.caller_data import hide_caller_data
from pipecat_base.logs.escaping import LONGEST_LINE, logged, logged_lines
from pipecat_base.logs.jsonl.capture import OutputCapture
from pipecat_base.logs.jsonl.records import record
from pipecat_base.logs.redaction import Redaction

with environment.without_default_log_sink():
    # Every module takes the logger from here, so that this is the first import of loguru.
    from loguru import logger as logger

if TYPE_CHECKING:
    from loguru import Message, Record

FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} | {extra[session_id]} - {message}"
NO_SESSION = "NONE"
OURS = __name__.partition(".")[0] + "."

# uvicorn writes request lines, and with them ?body= and ?token=, to these.
_REQUEST_LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi")

_NO_NEWS = ("ASGI callable returned without completing handshake.", "Invalid HTTP request received.")
"""What uvicorn says of every WebSocket that was refused with an HTTP response, and of requests that we refuse."""

_NO_VIDEO = frozenset({"No video transceiver is available", "No screen video transceiver is available"})
"""pipecat's warnings at every call of a browser that sends no video."""


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
            self.removed.add(self._logs._console)
            self.added.clear()
        else:
            self.removed.add(handler_id)
            self.added.pop(handler_id, None)


class Logs:
    """Owns the launcher's sinks.

    Args:
        level: One of settings.LOG_LEVELS; NONE is silence.
        capture: Where JSON lines are written too, or None.
        caller_data: Whether pipecat's lines may show what is known of callers.
    """

    def __init__(self, level: str, capture: OutputCapture | None = None, *, caller_data: bool = False) -> None:
        self._level = level
        self._capture = capture
        self._caller_data = caller_data
        self._redaction = Redaction()
        self._console: int | None = None
        self._lane_sink: int | None = None
        self._handler = LoguruHandler()
        self._one_import_at_a_time = threading.RLock()

    def configure(self) -> None:
        """Make loguru's console sink ours, and send the standard library's logging there."""
        logger.remove()
        _patch_first(_fit if self._caller_data else _both(hide_caller_data, _fit))
        self._console = self._add_console()
        if self._capture is not None and self._capture.records is not None and self._level != "NONE":
            self._lane_sink = self._add(self._write_to_lane, "{message}")
            self._keep_lane_sink()
        logging.captureWarnings(True)
        # At once, and whatever the bot does to the root: it would be told of them twice then.
        logging.getLogger("py.warnings").addHandler(self._handler)
        logging.getLogger("py.warnings").propagate = False
        root = logging.getLogger()
        root.setLevel(self._standard_level())
        # Not yet a handler of the root: basicConfig() in the bot does nothing once there is one, its level= included.
        logging.lastResort = self._handler
        self._quieten()
        for name in _REQUEST_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
            # Levels are reset by a bot's dictConfig(); filters are not.
            logging.getLogger(name).addFilter(_is_for_people)

    def hide(self, session_id: str, url: str) -> None:
        """Show no log line of this session with this URL, or with a piece of it."""
        self._redaction.hide(session_id, url)

    def redact(self, session_id: str, text: str) -> str:
        """The text as it may be shown in this session's lines, whichever sink they go to."""
        return self._redaction(session_id, text)

    @contextlib.contextmanager
    def of_session(self, session_id: str) -> Iterator[None]:
        """Around a session's bot: its log lines carry the id, and in the lane so does what it prints."""
        capture = contextlib.nullcontext() if self._capture is None else self._capture.of_session(session_id)
        with logger.contextualize(session_id=session_id), capture:
            yield

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
        with self._one_import_at_a_time:
            yield from self._unchanged()

    def _unchanged(self) -> Iterator[None]:
        thread, add, remove = threading.get_ident(), logger.add, logger.remove

        def add_elsewhere(sink: Any, **options: Any) -> int:
            return -1 if threading.get_ident() == thread else int(add(sink, **options))

        def remove_elsewhere(handler_id: int | None = None) -> None:
            if threading.get_ident() != thread:
                remove(handler_id)

        with _replaced(add_elsewhere, remove_elsewhere):
            yield

    def _restore(self, watch: _Watch) -> None:
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
        if self._capture is not None and self._capture.as_json:
            return self._add(self._write_json, "{message}", add)
        return self._add(_Console(self._past_lane(sys.stderr), self._redaction), _console_format, add)

    def _add(self, sink: Any, format_: Any, add: Any = None) -> int:
        # diagnose would print the values of variables, secrets too, beside the traceback.
        options: dict[str, Any] = {"level": self._level, "backtrace": False, "diagnose": False, "filter": _is_news}
        return int((add or logger.add)(sink, format=format_, **options))

    def _past_lane(self, stream: Any) -> Any:
        return stream if self._capture is None else self._capture.original(stream)

    def _write_json(self, message: Message) -> None:
        assert self._capture is not None
        stream = self._capture.original(sys.stderr)
        with contextlib.suppress(BrokenPipeError):  # nobody reads there any more
            stream.write(f"{self._as_record(message)}\n")

    def _write_to_lane(self, message: Message) -> None:
        assert self._capture is not None
        assert self._capture.records is not None
        self._capture.records.append(self._as_record(message))

    def _as_record(self, message: Message) -> str:
        found = message.record
        session_id = _session_of(found)
        return record(
            "app",
            self._redaction(session_id, _said(found, str(message)).rstrip("\n")),  # with an exception's traceback
            level=found["level"].name,
            session_id=session_id,
            at=found["time"],
        )

    def _keep_lane_sink(self) -> None:
        """Let no ``logger.remove()`` of the bot's, nor of a library that it imports in a session, end the lane."""
        kind: Any = type(logger)  # what bind() and opt() give is of it too
        add, remove = kind.add, kind.remove

        def add_past_lane(said_by: Any, sink: Any, *args: Any, **options: Any) -> int:
            # A console: what it prints would come a second time, as what was printed.
            return int(add(said_by, self._past_lane(sink) if _is_console(sink) else sink, *args, **options))

        def remove_others(said_by: Any, handler_id: int | None = None) -> None:
            remove(said_by, handler_id)
            if handler_id in (None, self._lane_sink):
                self._lane_sink = self._add(self._write_to_lane, "{message}", partial(add, logger))

        kind.add, kind.remove = add_past_lane, remove_others

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


class _Console:
    """The console, without what must not be shown there."""

    def __init__(self, stream: TextIO, redact: Callable[[str | None, str], str]) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, message: Message) -> None:
        # What stands before the message, the session's own id above all, is left as it is.
        session_id = _session_of(message.record)
        columns, separator, said = message.partition(f"| {session_id or NO_SESSION} - ")
        with contextlib.suppress(BrokenPipeError):  # nobody reads there any more
            self._stream.write(f"{columns}{separator}{self._redact(session_id, _said(message.record, said))}")

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _patch_first(patcher: Callable[[Record], None]) -> None:
    """Patch every record, whichever sink it goes to; a patcher of the bot's comes after it, not in its place."""
    kind: Any = type(logger)
    configure = kind.configure

    def configure_after(said_by: Any, *, patcher: Any = None, **options: Any) -> Any:
        return configure(said_by, patcher=None if patcher is None else _both(first, patcher), **options)

    first = patcher
    logger.configure(patcher=first)
    kind.configure = configure_after


def _both(first: Callable[[Record], None], then: Callable[[Record], None]) -> Callable[[Record], None]:
    def patch(record: Record) -> None:
        first(record)
        then(record)

    return patch


def _fit(record: Record) -> None:
    """Make one line of a message of the launcher's: some hold what callers and services have sent."""
    if _is_ours(record):
        record["message"] = logged(record["message"], LONGEST_LINE)


def _said(record: Record, text: str) -> str:
    """The message and the traceback below it, which quotes what callers have sent where the exception does."""
    return logged_lines(text) if record["exception"] is not None and _is_ours(record) else text


def _is_ours(record: Record) -> bool:
    # This module passes on what others log (LoguruHandler).
    return (record["name"] or "").startswith(OURS) and record["name"] != __name__


def _session_of(record: Record) -> str | None:
    session_id = record["extra"].get("session_id")
    return None if session_id in (None, NO_SESSION) else str(session_id)


def _console_format(record: Record) -> str:
    # Not loguru's configured extra: a bot that calls logger.configure(extra=...) would take it away.
    record["extra"].setdefault("session_id", NO_SESSION)
    return FORMAT + "\n{exception}"


def _is_news(record: Record) -> bool:
    return record["message"] not in _NO_VIDEO


def _is_for_people(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and record.msg not in _NO_NEWS


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
    before = {name: vars(logger).get(name) for name in ("add", "remove")}
    logger.add, logger.remove = add, remove  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, method in before.items():
            if method is None:
                delattr(logger, name)
            else:
                setattr(logger, name, method)


def _is_bridge(handler: logging.Handler) -> bool:
    # The InterceptHandler of loguru's documentation: the bot sends logging to loguru by itself. Its emit() uses the
    # logger; that the module it stands in imports the logger says nothing.
    emit = type(handler).emit
    if not inspect.isfunction(emit):
        return False
    return any(emit.__globals__.get(name) is logger for name in emit.__code__.co_names)


def _is_console(sink: Any) -> bool:
    return any(sink is stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
