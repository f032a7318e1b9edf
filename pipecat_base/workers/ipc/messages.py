"""Every message between the launcher's processes, encoded as JSON with bytes in base64.

Requests of callers are none: a worker serves them over HTTP, on the connections that :class:`Serve` hands to it.
Messages from workers, which run users' code, are not trusted.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from starlette.types import Scope

from pipecat_base import errors
from pipecat_base.errors import Refusal, StartupError
from pipecat_base.sessions.outcome import MAX_FRAMES, MAX_LINE, BotError, Outcome, Report

# Bytes of a message to the launcher, whose event loop parses it while every call waits.
SMALL, LARGE = 16 * 1024, 256 * 1024
MAX_TEXT = 20_000
MAX_URL = 4096


@dataclass(frozen=True)
class Message:
    kinds: ClassVar[dict[str, type[Message]]] = {}
    max_bytes: ClassVar[int] = 0
    """Limit of a message to the launcher, encoded; 0 if only the launcher sends it."""

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


# To the fork server and to template processes.


@dataclass(frozen=True)
class Fork(Message):
    """Fork a process. ``standalone``: from the fork server, a worker that imports the bot itself, not a template."""

    number: int
    standalone: bool = False
    variables: dict[str, str] | None = None


@dataclass(frozen=True)
class Forked(Message):
    """``problem``: why the system refused."""

    max_bytes = SMALL

    number: int
    pid: int = 0
    problem: str | None = None


@dataclass(frozen=True)
class Exited(Message):
    """``status`` is that of waitpid(2), ``cpu`` in seconds, ``peak`` resident bytes."""

    max_bytes = SMALL

    pid: int
    status: int
    cpu: float = 0.0
    peak: int = 0


# From a template process, and from a standalone worker.


@dataclass(frozen=True)
class BotImported(Message):
    """``routes``: path, methods (None for a WebSocket, ``["*"]`` for a mount) and name of the bot's own routes."""

    max_bytes = 4 * 1024 * 1024

    name: str
    file: str
    warnings: list[str]
    webrtc_problem: str | None
    has_file_storage: bool
    has_readyz: bool
    has_app: bool
    routes: list[tuple[str, list[str] | None, str]]
    fork_hazards: list[str]


@dataclass(frozen=True)
class StartupFailed(Message):
    max_bytes = LARGE

    kind: str
    message: str
    remedy: str
    frames: list[str]

    @classmethod
    def of(cls, error: StartupError) -> StartupFailed:
        frames = [frame[:MAX_LINE] for frame in error.frames[:MAX_FRAMES]]
        return cls(type(error).__name__, error.message[:MAX_TEXT], error.remedy[:MAX_TEXT], frames)

    def error(self) -> StartupError:
        if self.kind == errors.SettingsInvalid.__name__:
            return errors.SettingsInvalid(self.message.split("; "))
        known = {kind.__name__: kind for kind in StartupError.__subclasses__()}
        return known.get(self.kind, errors.SetupFailed)(self.message, self.remedy, frames=self.frames)


@dataclass(frozen=True)
class WarmUp(Message):
    webrtc: bool


# To a worker.


@dataclass(frozen=True)
class Serve(Message):
    """Serve the connection on the descriptor; ``head`` and ``early`` were read from it already.

    Attributes:
        client, server, scheme: As in the ASGI scope of the caller's own request.
        session_id: Of the session that the request may begin, or belongs to.
        number: Of a request that may begin a session: the worker's messages about the session repeat it, and it sends
            one :class:`SessionEnded` in any case. 0 for other requests.
        is_internal: The launcher's own request, for :mod:`pipecat_base.api.internal`.
        flow_config: Of a WebSocket's session.
        ice: ICE servers for peers, so that the worker does not look them up.
    """

    client: list[Any] | None = None
    server: list[Any] | None = None
    scheme: str = "http"
    head: bytes = b""
    early: bytes = b""
    session_id: str | None = None
    number: int = 0
    is_internal: bool = False
    flow_config: str | None = None
    ice: list[dict[str, Any]] | None = None

    @classmethod
    def of(cls, scope: Scope, **fields: Any) -> Serve:
        client, server = (None if found is None else list(found) for found in (scope["client"], scope.get("server")))
        return cls(client, server, scope["scheme"], **fields)


@dataclass(frozen=True)
class Cancel(Message):
    session_id: str
    outcome: str


@dataclass(frozen=True)
class Close(Message):
    pass


# From a worker, and from a template.


@dataclass(frozen=True)
class Progress(Message):
    """A process has come to a :class:`Stage`.

    Attributes:
        takes_files, listens_on: Once the bot is set up.
        webrtc: True if WebRTC's modules were imported for sessions.
    """

    max_bytes = LARGE

    stage: str
    takes_files: bool = False
    listens_on: list[str] = field(default_factory=list)
    webrtc: bool = False


class Stage:
    LOOP_STARTED = "loop_started"
    IDLE = "idle"
    WARM = "warm"


@dataclass(frozen=True)
class StateEntered(Message):
    max_bytes = SMALL

    session_id: str
    state: str
    transport: str
    number: int


@dataclass(frozen=True)
class Noted(Message):
    """Something that the launcher keeps for a session."""

    max_bytes = 2 * SMALL

    session_id: str
    kind: str
    """FILE (its URL) or MOQ (the certificates' fingerprints)."""
    values: list[str]


FILE, MOQ = "file", "moq"


@dataclass(frozen=True)
class EventEmitted(Message):
    max_bytes = LARGE

    session_id: str | None
    name: str
    fields: dict[str, Any]
    at: float


@dataclass(frozen=True)
class SessionEnded(Message):
    """A session has ended in its worker; with ``outcome`` None, the response of a request begins that began none.

    Attributes:
        bot_error: The exception, then its frames.
        refusal: Code and field of a refusal that ended the session before its bot ran, or of the request.
    """

    max_bytes = LARGE

    session_id: str
    number: int
    outcome: str | None = None
    message: str = ""
    seconds: float = 0.0
    bot_error: list[str] | None = None
    refusal: list[str | None] | None = None
    leaves_bot_running: bool = False
    """True if the bot ignores its end."""

    @classmethod
    def of(cls, session_id: str, number: int, report: Report, refusal: Refusal | None, **fields: bool) -> SessionEnded:
        bot_error = None if report.bot_error is None else [report.bot_error.summary, *report.bot_error.frames]
        refused = None if refusal is None else [refusal.code, refusal.field]
        return cls(
            session_id, number, report.outcome.value, report.message, report.seconds, bot_error, refused, **fields
        )

    def report(self) -> Report:
        return Report(Outcome(self.outcome), self.message, self.seconds, _bot_error(self.bot_error))


def _bot_error(lines: Any) -> BotError | None:
    if not isinstance(lines, list) or not lines:
        return None
    said, *frames = (str(line)[:MAX_LINE] for line in lines[: 1 + MAX_FRAMES])
    return BotError(said, tuple(frames))


def encode(message: Message) -> bytes:
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    return json.dumps([type(message).__name__, fields], default=_as_base64, separators=(",", ":")).encode()


def decode(content: bytes) -> Message:
    kind_name, fields = json.loads(content)
    kind = Message.kinds[kind_name]
    for name in ("head", "early"):
        if name in fields:
            fields[name] = base64.b64decode(fields[name])
    return kind(**fields)


def _as_base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
