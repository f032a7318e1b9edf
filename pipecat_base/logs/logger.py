"""The loguru set-up: one format with the session id, which keeps the sinks that the bot adds.

Most pipecat examples begin with ``logger.remove(0); logger.add(sys.stderr, level="DEBUG")``. That plain console sink is
replaced by ours after the import, as its lines have no session id; one with a format of its own replaces ours. The
handler of ``logging.basicConfig()`` is replaced by ours too, unless its formatter is not the standard library's (JSON).
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from pipecat_base.config import environment
from pipecat_base.logs import streams
from pipecat_base.logs.caller_data import hide_caller_data
from pipecat_base.logs.escaping import LONGEST_LINE, logged, logged_lines
from pipecat_base.logs.redaction import Redaction

with environment.without_default_log_sink():
    # Every module imports the logger from here, so that this is the first import of loguru.
    from loguru import logger as logger

_add_sink: Any = type(logger).add

if TYPE_CHECKING:
    from loguru import Message, Record

    from pipecat_base.logs.jsonl.capture import OutputCapture

FORMAT = "{time:YYYY-MM-DD HH:mm:ss.SSS} | {level: <8} | {name}:{function}:{line} | {extra[session_id]} - {message}"
NO_SESSION = "NONE"
PACKAGE = __name__.partition(".")[0] + "."

# uvicorn writes request lines, and with them ?body= and ?token=, to these.
_REQUEST_LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi")
# Logged for every WebSocket refused with an HTTP response, and for requests that the launcher refuses itself.
_UVICORN_NOISE = ("ASGI callable returned without completing handshake.", "Invalid HTTP request received.")
# Logged by pipecat in every call of a browser that sends no video.
_PIPECAT_NOISE = frozenset({"No video transceiver is available", "No screen video transceiver is available"})


@dataclass(frozen=True)
class _AddedSink:
    console: bool
    plain: bool  # neither a format, nor a filter, nor JSON: the boilerplate of examples


class _SinkWatch:
    """Records the sinks that the bot's import adds and removes."""

    def __init__(self, logs: Logs) -> None:
        self._logs = logs
        self._add, self._remove = logger.add, logger.remove
        self.added: dict[int, _AddedSink] = {}
        self.removed: set[int | None] = set()

    def add(self, sink: Any, **options: Any) -> int:
        """Like ``logger.add``; a plain console sink that replaces ours has our format from its first line on."""
        console, plain = _is_console(sink), _is_plain(options)
        if console and plain and self._logs._console in self.removed:
            sink_id = self._logs._add_console()
        else:
            sink_id = self._add(sink, **options)
        self.added[sink_id] = _AddedSink(console, plain)
        return sink_id

    def remove(self, handler_id: int | None = None) -> None:
        self._remove(handler_id)
        if handler_id is None:
            self.removed.add(self._logs._console)
            self.added.clear()
        else:
            self.removed.add(handler_id)
            self.added.pop(handler_id, None)


class Logs:
    def __init__(self, level: str, capture: OutputCapture | None = None, *, caller_data: bool = False) -> None:
        self._level = level
        self._capture = capture
        self._caller_data = caller_data
        self._redaction = Redaction()
        self._console: int | None = None
        self._jsonl_sink: int | None = None
        self._sinks: set[int] = set()
        self._made: set[int] = set()  # of these, the launcher's
        self._has_warned = False
        self._is_importing = False
        self._handler = LoguruHandler()
        self._import_lock = threading.RLock()
        self.runs_one_session = False
        """True in a process that runs one session at a time: lines of the bot's threads have its id too."""
        self._session: str | None = None

    def configure(self) -> None:
        logger.remove()
        first = _both(self._name_session, _escape)
        _patch_first(first if self._caller_data else _both(hide_caller_data, first))
        self._keep_sinks()
        self._console = self._add_console()
        if self._capture is not None and self._capture.records is not None and self._level != "NONE":
            self._jsonl_sink = self._add(self._write_to_jsonl, "{message}")
        streams.keep_open()
        self._take_warnings()
        root = logging.getLogger()
        root.setLevel(self._standard_level())
        root.addHandler = self._add_to_root  # type: ignore[method-assign, assignment]
        self._quieten()
        for name in _REQUEST_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
            # A bot's dictConfig() resets levels, but not filters.
            logging.getLogger(name).addFilter(_is_worth_logging)

    def _name_session(self, record: Record) -> None:
        if self._session is not None:
            record["extra"].setdefault("session_id", self._session)

    def hide(self, session_id: str, url: str) -> None:
        self._redaction.hide(session_id, url)

    def redact(self, session_id: str, text: str) -> str:
        return self._redaction(session_id, text)

    @contextlib.contextmanager
    def of_session(self, session_id: str) -> Iterator[None]:
        """Context of a session's bot: its log lines, and its printed lines in bot.jsonl, get the session's id."""
        if self.runs_one_session:
            self._session = session_id
        streams.restore()
        self._take_warnings()
        self._adopt_standard_logging()
        capture = contextlib.nullcontext() if self._capture is None else self._capture.of_session(session_id)
        with logger.contextualize(session_id=session_id), capture:
            yield

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Context of the bot's import, which may set up logging: restores the launcher's sinks afterwards."""
        watch = _SinkWatch(self)
        self._is_importing = True
        with _replaced(watch.add, watch.remove):
            yield
        self._restore(watch)
        self._is_importing = False
        self._adopt_standard_logging()

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """Context of an import by the launcher during sessions: ignores its changes to the sinks."""
        with self._import_lock:
            yield from self._unchanged()

    def _unchanged(self) -> Iterator[None]:
        thread, add, remove = threading.get_ident(), logger.add, logger.remove

        def add_in_other_threads(sink: Any, **options: Any) -> int:
            return -1 if threading.get_ident() == thread else int(add(sink, **options))

        def remove_in_other_threads(handler_id: int | None = None) -> None:
            if threading.get_ident() != thread:
                remove(handler_id)

        with _replaced(add_in_other_threads, remove_in_other_threads):
            yield

    def _restore(self, watch: _SinkWatch) -> None:
        if self._console is None or self._console not in watch.removed:
            return
        consoles = {sink_id: sink for sink_id, sink in watch.added.items() if sink.console}
        if not all(sink.plain for sink in consoles.values()):
            self._console = None
            return
        for sink_id in consoles:
            _remove(sink_id)
        self._console = self._add_console()

    def _add_console(self) -> int:
        if self._level == "NONE":
            # A silent sink: bots remove sink 0, which fails when there is none.
            return self._add(_discard, "", level=sys.maxsize)
        if self._capture is not None and self._capture.as_json:
            return self._add(self._write_json, "{message}")
        return self._add(_RedactedConsole(self._console_stream(), self._redaction), _console_format)

    def _add(self, sink: Any, format_: Any, **options: Any) -> int:
        # diagnose would print the values of variables, and so secrets, in tracebacks.
        options = {"level": self._level, "backtrace": False, "diagnose": False, "filter": _is_not_noise, **options}
        sink_id = int(_add_sink(logger, sink, format=format_, **options))
        self._made.add(sink_id)
        self._sinks.add(sink_id)
        return sink_id

    def _uncaptured(self, stream: Any) -> Any:
        return stream if self._capture is None else self._capture.original(stream)

    def _console_stream(self) -> TextIO:
        return streams.own_stderr() if self._capture is None else self._capture.original(sys.stderr)

    def _write_json(self, message: Message) -> None:
        assert self._capture is not None
        stream = self._capture.original(sys.stderr)
        with contextlib.suppress(BrokenPipeError):  # the reader has closed it
            stream.write(f"{self._json_line(message, is_console=True)}\n")

    def _write_to_jsonl(self, message: Message) -> None:
        assert self._capture is not None
        assert self._capture.records is not None
        self._capture.records.append(self._json_line(message, is_console=False))

    def _json_line(self, message: Message, *, is_console: bool) -> str:
        assert self._capture is not None
        record = message.record
        session_id = _session_of(record)
        text = self._redaction(session_id, _escape_traceback(record, str(message)).rstrip("\n"))
        return self._capture.log_line(
            text, level=record["level"].name, session_id=session_id, at=record["time"], is_console=is_console
        )

    def _keep_sinks(self) -> None:
        """Let no ``logger.remove()`` take the launcher's sinks away; only an import may replace the console's."""
        kind: Any = type(logger)  # the type of what bind() and opt() return, too
        add, remove = _add_sink, kind.remove

        def add_sink(this: Any, sink: Any, *args: Any, **options: Any) -> int:
            if _is_console(sink) and not self._is_importing and self._console is not None:
                if not _is_plain(options) and not self._has_warned:
                    self._has_warned = True
                    logger.warning("A console sink that is added during a call is not used: add it at import")
                return self._console
            # Through the captured console, bot.jsonl would get log lines a second time, as printed output.
            sink_id = int(add(this, self._uncaptured(sink) if _is_console(sink) else sink, *args, **options))
            self._sinks.add(sink_id)
            return sink_id

        def remove_sink(this: Any, handler_id: int | None = None) -> None:
            kept = {self._jsonl_sink} if self._is_importing else {self._jsonl_sink, self._console}
            if handler_id is None:
                removed = self._sinks - kept
            else:
                is_kept = handler_id in kept or (handler_id in self._made and handler_id not in self._sinks)
                removed = set() if is_kept else {handler_id}
            for sink_id in removed:
                remove(this, sink_id)
            self._sinks -= removed
            if self._console is None and not self._is_importing and not self._sinks - {self._jsonl_sink}:
                self._console = self._add_console()

        kind.add, kind.remove = add_sink, remove_sink

    def _quieten(self) -> None:
        # aioice logs every candidate pair of every call at INFO.
        if self._level != "TRACE" and logging.getLogger("aioice").level == logging.NOTSET:
            logging.getLogger("aioice").setLevel(logging.WARNING)

    def _standard_level(self) -> int:
        # DEBUG of every library would drown the bot's own lines; a bot can still set the root's level.
        levels = {"TRACE": logging.DEBUG, "NONE": logging.CRITICAL + 1, "WARNING": logging.WARNING}
        return {**levels, "ERROR": logging.ERROR}.get(self._level, logging.INFO)

    def _take_warnings(self) -> None:
        logging.captureWarnings(True)
        warnings = logging.getLogger("py.warnings")
        # Independent of the root logger, where the bot's own handlers would log warnings a second time.
        warnings.addHandler(self._handler)
        warnings.propagate = warnings.disabled = False
        # Not a handler of the root yet: with one there, basicConfig() in the bot would ignore its level=.
        logging.lastResort = self._handler

    def _add_to_root(self, handler: logging.Handler) -> None:
        logging.Logger.addHandler(logging.getLogger(), handler)
        if not self._is_importing and handler is not self._handler:
            self._adopt_standard_logging()

    def _adopt_standard_logging(self) -> None:
        root = logging.getLogger()
        consoles = [h for h in root.handlers if type(h) is logging.StreamHandler and _is_console(h.stream)]
        if any(type(console.formatter) not in (type(None), logging.Formatter) for console in consoles):
            return  # a format that the user has chosen, such as JSON
        if any(_is_bridge(handler) for handler in root.handlers if handler is not self._handler):
            return
        for console in consoles:
            root.removeHandler(console)
        if self._handler not in root.handlers:
            root.addHandler(self._handler)


class LoguruHandler(logging.Handler):
    """Passes the standard library's records on to loguru, which adds the session id."""

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(getattr(record, "extra", None), dict):
            return  # from loguru, through a sink of the bot's that is a logging.Handler
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
        # An argument, not the format: the message may have braces.
        logger.patch(patch).opt(exception=record.exc_info).log(level, "{}", message)


class _RedactedConsole:
    def __init__(self, stream: TextIO, redact: Callable[[str | None, str], str]) -> None:
        self._stream = stream
        self._redact = redact

    def write(self, message: Message) -> None:
        # The columns before the message, with the session id, are not redacted.
        session_id = _session_of(message.record)
        columns, separator, text = message.partition(f"| {session_id or NO_SESSION} - ")
        with contextlib.suppress(BrokenPipeError):  # the reader has closed it
            self._stream.write(
                f"{columns}{separator}{self._redact(session_id, _escape_traceback(message.record, text))}"
            )

    def flush(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()


def _patch_first(patcher: Callable[[Record], None]) -> None:
    """Patch every record for every sink; a patcher that the bot sets runs after this one instead of replacing it."""
    kind: Any = type(logger)
    configure = kind.configure

    def configure_after(this: Any, *, patcher: Any = None, **options: Any) -> Any:
        return configure(this, patcher=None if patcher is None else _both(first, patcher), **options)

    first = patcher
    logger.configure(patcher=first)
    kind.configure = configure_after


def _both(first: Callable[[Record], None], then: Callable[[Record], None]) -> Callable[[Record], None]:
    def patch(record: Record) -> None:
        first(record)
        then(record)

    return patch


def _escape(record: Record) -> None:
    """Make the launcher's message one line: it may quote callers and services."""
    if _is_launchers(record):
        record["message"] = logged(record["message"], LONGEST_LINE)


def _escape_traceback(record: Record, text: str) -> str:
    # The exception may quote callers.
    return logged_lines(text) if record["exception"] is not None and _is_launchers(record) else text


def _is_launchers(record: Record) -> bool:
    # Not this module: LoguruHandler passes on records of others.
    return (record["name"] or "").startswith(PACKAGE) and record["name"] != __name__


def _session_of(record: Record) -> str | None:
    session_id = record["extra"].get("session_id")
    return None if session_id in (None, NO_SESSION) else str(session_id)


def _console_format(record: Record) -> str:
    # Not loguru's configured extra, which a bot's logger.configure(extra=...) would replace.
    record["extra"].setdefault("session_id", NO_SESSION)
    return FORMAT + "\n{exception}"


def _is_not_noise(record: Record) -> bool:
    return record["message"] not in _PIPECAT_NOISE


def _is_worth_logging(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING and record.msg not in _UVICORN_NOISE


def _discard(message: Message) -> None:
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
    # The InterceptHandler of loguru's documentation, which sends logging to loguru already. Its emit() must use the
    # logger; its module imports the logger in any case.
    emit = type(handler).emit
    if not inspect.isfunction(emit):
        return False
    return any(emit.__globals__.get(name) is logger for name in emit.__code__.co_names)


def _is_plain(options: dict[str, Any]) -> bool:
    return not any(options.get(name) for name in ("format", "filter", "serialize"))


def _is_console(sink: Any) -> bool:
    return any(sink is stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__))
