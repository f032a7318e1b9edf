"""Every message between the launcher's processes, encoded as JSON with bytes in base64.

Requests carry a number and get a :class:`Reply`. Messages from workers, which run users' code, are not trusted.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipecat_base import errors
from pipecat_base.errors import Refusal, StartupError
from pipecat_base.sessions import transports
from pipecat_base.sessions.outcome import MAX_FRAMES, MAX_LINE, BotError, Outcome, Report
from pipecat_base.sessions.transports import Caller, MoqServer, Transport, WebSocketTransport

SMALL, LARGE = 16 * 1024, 256 * 1024
"""Bytes of a message to the launcher, whose event loop parses it while every call waits."""
MAX_TEXT = 20_000
MAX_URL = 4096


class RemoteError(Exception):
    """An error in another process, whose class and text crossed."""


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
    max_bytes = SMALL

    number: int
    pid: int


@dataclass(frozen=True)
class ForkRefused(Message):
    max_bytes = SMALL

    number: int
    reason: str


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


@dataclass(frozen=True)
class WarmedUp(Message):
    max_bytes = SMALL

    webrtc: bool


# To a worker: requests.


@dataclass(frozen=True)
class Request(Message):
    number: int


@dataclass(frozen=True)
class Run(Request):
    """Reply: the report, once the session has ended. A WebSocket is the first descriptor."""

    session_id: str
    transport_kind: str
    max_seconds: float | None
    transport: dict[str, Any]
    body: Any
    flow_config: str | None
    caller: list[str | None]
    head: bytes = b""
    early: bytes = b""
    has_body_file: bool = False
    """The last descriptor is then a file that holds the body."""


@dataclass(frozen=True)
class AnswerOffer(Request):
    session_id: str
    max_seconds: float | None
    content: Any
    ice: list[dict[str, Any]] | None
    caller: list[str | None]
    has_content_file: bool = False


@dataclass(frozen=True)
class AddCandidates(Request):
    content: Any
    has_content_file: bool = False


@dataclass(frozen=True)
class PickUp(Request):
    """Reply: the SDP of the answer. The session then waits for :class:`Run`, or runs already: :class:`ConnectCall`."""

    session_id: str
    max_seconds: float | None
    transport: dict[str, Any]
    ice: list[dict[str, Any]] | None
    caller: list[str | None]


@dataclass(frozen=True)
class CheckReadiness(Request):
    pass


@dataclass(frozen=True)
class Ping(Request):
    pass


@dataclass(frozen=True)
class GetCapabilities(Request):
    pass


@dataclass(frozen=True)
class GetIceServers(Request):
    """Reply: the ICE servers; with ``configured_only`` null unless clients have some configured."""

    configured_only: bool


@dataclass(frozen=True)
class DeleteUploads(Request):
    urls: list[str]


# To a worker: notifications.


@dataclass(frozen=True)
class HangUp(Message):
    session_id: str


@dataclass(frozen=True)
class ConnectCall(Message):
    session_id: str


@dataclass(frozen=True)
class CallerLeft(Message):
    session_id: str


@dataclass(frozen=True)
class Cancel(Message):
    session_id: str
    outcome: str


@dataclass(frozen=True)
class ServeConnection(Message):
    """Serve the bot's own app on the descriptor; ``head`` and ``early`` were read from it already."""

    head: bytes
    early: bytes
    client: list[Any] | None
    scheme: str


@dataclass(frozen=True)
class LogFeatures(Message):
    pass


@dataclass(frozen=True)
class Close(Message):
    pass


# From a worker.


@dataclass(frozen=True)
class LoopStarted(Message):
    max_bytes = SMALL


@dataclass(frozen=True)
class WorkerIdle(Message):
    max_bytes = LARGE

    takes_files: bool
    listens_on: list[str]


@dataclass(frozen=True)
class StateEntered(Message):
    max_bytes = SMALL

    session_id: str
    state: str


@dataclass(frozen=True)
class MoqServing(Message):
    max_bytes = SMALL

    session_id: str
    fingerprints: list[str]


@dataclass(frozen=True)
class FileStored(Message):
    max_bytes = 2 * SMALL

    session_id: str
    url: str


@dataclass(frozen=True)
class EventEmitted(Message):
    max_bytes = LARGE

    session_id: str | None
    name: str
    fields: dict[str, Any]
    at: float


@dataclass(frozen=True)
class SessionEnded(Message):
    max_bytes = LARGE

    session_id: str
    outcome: str
    message: str
    seconds: float
    bot_error: list[str] | None = None
    """The exception, then its frames."""

    @classmethod
    def of(cls, session_id: str, report: Report) -> SessionEnded:
        bot_error = None if report.bot_error is None else [report.bot_error.summary, *report.bot_error.frames]
        return cls(session_id, report.outcome.value, report.message, report.seconds, bot_error)

    def report(self) -> Report:
        return Report(Outcome(self.outcome), self.message, self.seconds, _bot_error(self.bot_error))


@dataclass(frozen=True)
class Reply(Message):
    """``refusal``: class, message, field and session id; ``failure``: class and text."""

    max_bytes = LARGE

    number: int
    value: Any = None
    refusal: list[str | None] | None = field(default=None)
    failure: list[str] | None = None

    @classmethod
    def failing(cls, number: int, error: Exception) -> Reply:
        return cls(number, None, None, [type(error).__name__, str(error)])

    @classmethod
    def refusing(cls, number: int, refusal: Refusal) -> Reply:
        return cls(number, None, [type(refusal).__name__, refusal.message, refusal.field, refusal.session_id])

    def result(self) -> Any:
        """Return the value, or raise the Refusal, or a subclass of RemoteError that is named as the error."""
        if self.failure is not None:
            name, message = _texts(self.failure, 2)
            raise type((name or "").encode("ascii", "replace").decode().replace("\0", ""), (RemoteError,), {})(message)
        if self.refusal is None:
            return self.value
        name, message, field_name, session_id = _texts(self.refusal, 4)
        known: dict[str | None, type[Refusal]] = {kind.__name__: kind for kind in Refusal.__subclasses__()}
        kind = known.get(name, errors.NotSupported)
        refusal = kind.__new__(kind)  # some make their message themselves
        Refusal.__init__(refusal, message or "", field=field_name, session_id=session_id)
        if isinstance(refusal, errors.FlowUnusable):
            refusal.reason = "the log of its process says why"
        raise refusal


def _bot_error(lines: Any) -> BotError | None:
    if not isinstance(lines, list) or not lines:
        return None
    said, *frames = (str(line)[:MAX_LINE] for line in lines[: 1 + MAX_FRAMES])
    return BotError(said, tuple(frames))


def _texts(values: Any, count: int) -> list[str | None]:
    if not isinstance(values, list) or len(values) != count:
        raise RemoteError("the bot's process sent an invalid reply")
    return [value if value is None else str(value) for value in values]


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


def transport_as_dict(transport: Transport) -> dict[str, Any]:
    kind = type(transport).__name__
    if isinstance(transport, WebSocketTransport):
        return {"kind": kind, "transport_type": transport.transport_type}
    left_out = {"on_serving"} if isinstance(transport, MoqServer) else set()
    fields = {f.name: getattr(transport, f.name) for f in dataclasses.fields(transport) if f.name not in left_out}
    return {"kind": kind, **fields}


def caller_as_list(caller: Caller) -> list[str | None]:
    return [caller.peer, caller.traceparent]


def transport_from(content: dict[str, Any], **local_fields: Any) -> Transport:
    fields = {name: value for name, value in content.items() if name != "kind"}
    found: Transport = getattr(transports, content["kind"])(**fields, **local_fields)
    return found


def _as_base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
