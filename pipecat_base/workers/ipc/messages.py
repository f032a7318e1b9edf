"""Every message between the launcher's processes, and how it is written: JSON, with bytes in base64.

The front speaks to the nursery and to templates (:class:`Make`), and to workers (requests, which carry a number and get
a :class:`Reply`, and notes, which do not). No message is trusted to be anything but JSON: workers run users' code.
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
"""Bytes of a message to the launcher: all calls wait while it is parsed."""
MAX_TEXT = 20_000
"""Characters of what a startup error says."""
MAX_URL = 4096
"""Characters of an uploaded file's URL."""


class Failed(Exception):
    """An error in another process."""


@dataclass(frozen=True)
class Message:
    """What crosses."""

    kinds: ClassVar[dict[str, type[Message]]] = {}
    max_bytes: ClassVar[int] = 0
    """Of one that a process sends to the launcher, as it crosses; none of those that only the launcher sends."""

    def __init_subclass__(cls) -> None:
        Message.kinds[cls.__name__] = cls


# To whoever makes processes.


@dataclass(frozen=True)
class Make(Message):
    """Make a process. Its end of a channel comes along.

    Attributes:
        alone: Of the nursery: it imports the bot and is a worker, not a template.
        variables: Of the nursery: its environment, where that has changed.
    """

    number: int
    alone: bool = False
    variables: dict[str, str] | None = None


@dataclass(frozen=True)
class Made(Message):
    """A process runs."""

    max_bytes = SMALL

    number: int
    pid: int


@dataclass(frozen=True)
class NotMade(Message):
    """The system would not give one."""

    max_bytes = SMALL

    number: int
    reason: str


@dataclass(frozen=True)
class Exited(Message):
    """A process that was made has ended; the status is that of ``waitpid``.

    Attributes:
        cpu: Seconds that it has used.
        peak: The most memory that it had resident, in bytes.
    """

    max_bytes = SMALL

    pid: int
    status: int
    cpu: float = 0.0
    peak: int = 0


# From a template, and from a worker that is alone.


@dataclass(frozen=True)
class BotImported(Message):
    """The bot is imported.

    Attributes:
        routes: Of the bot's own routes the path, the methods and the function's name. No methods for WebSockets, "*"
            for all below a path.
        threads: Names of the threads that its import has left running: a fork would lose them.
    """

    max_bytes = 4 * 1024 * 1024

    name: str
    file: str
    warnings: list[str]
    webrtc_problem: str | None
    has_file_storage: bool
    has_readyz: bool
    has_app: bool
    routes: list[tuple[str, list[str] | None, str]]
    threads: list[str]


@dataclass(frozen=True)
class NotServing(Message):
    """A startup error: the bot was not imported, or could not be set up."""

    max_bytes = LARGE

    kind: str
    message: str
    remedy: str
    frames: list[str]

    @classmethod
    def of(cls, error: StartupError) -> NotServing:
        """In words for another process."""
        frames = [frame[:MAX_LINE] for frame in error.frames[:MAX_FRAMES]]
        return cls(type(error).__name__, error.message[:MAX_TEXT], error.remedy[:MAX_TEXT], frames)

    def error(self) -> StartupError:
        """The error again."""
        if self.kind == errors.SettingsInvalid.__name__:
            return errors.SettingsInvalid(self.message.split("; "))
        known = {kind.__name__: kind for kind in StartupError.__subclasses__()}
        return known.get(self.kind, errors.SetupFailed)(self.message, self.remedy, frames=self.frames)


@dataclass(frozen=True)
class WarmUp(Message):
    """To a template: import what sessions will need, so that workers that are made later have it."""

    webrtc: bool


@dataclass(frozen=True)
class WarmedUp(Message):
    """It is imported; WebRTC's part too, or not."""

    max_bytes = SMALL

    webrtc: bool


# To a worker: requests.


@dataclass(frozen=True)
class Request(Message):
    """Gets a reply of the same number."""

    number: int


@dataclass(frozen=True)
class Run(Request):
    """Run the bot. Replied with a report, when the session has ended. A stream's connection comes along."""

    session_id: str
    transport_kind: str
    max_seconds: float | None
    transport: dict[str, Any]
    body: Any
    flow_config: str | None
    caller: list[str | None]
    head: bytes = b""
    """Of a stream: the request, as it came."""
    early: bytes = b""
    """What came right after it."""
    has_body_file: bool = False
    """Whether the last descriptor is a file that holds the body."""


@dataclass(frozen=True)
class AnswerOffer(Request):
    """A WebRTC offer. Replied with the answer. ``ice`` are the servers, if the launcher knows any."""

    session_id: str
    max_seconds: float | None
    content: Any
    ice: list[dict[str, Any]] | None
    caller: list[str | None]
    has_content_file: bool = False
    """Whether the last descriptor is a file that holds the content."""


@dataclass(frozen=True)
class AddCandidates(Request):
    """ICE candidates."""

    content: Any
    has_content_file: bool = False


@dataclass(frozen=True)
class PickUp(Request):
    """A WhatsApp call. The session is reserved and waits; replied with the SDP of the answer."""

    session_id: str
    max_seconds: float | None
    transport: dict[str, Any]
    ice: list[dict[str, Any]] | None
    caller: list[str | None]


@dataclass(frozen=True)
class Ready(Request):
    """Ask the bot's readyz()."""


@dataclass(frozen=True)
class Ping(Request):
    """Answered by a loop that is not blocked."""


@dataclass(frozen=True)
class GetCapabilities(Request):
    """Why each capability is missing, or null."""


@dataclass(frozen=True)
class GetIceServers(Request):
    """Replied with the servers that peers use, or null where ``configured_only`` and there are none for clients."""

    configured_only: bool


@dataclass(frozen=True)
class Delete(Request):
    """Delete uploads of a session whose process has died."""

    urls: list[str]


# To a worker: notes.


@dataclass(frozen=True)
class HangUp(Message):
    """The caller of the WhatsApp call has hung up."""

    session_id: str


@dataclass(frozen=True)
class CallerLeft(Message):
    """Whoever started the session is gone."""

    session_id: str


@dataclass(frozen=True)
class Cancel(Message):
    """End the session, with this outcome."""

    session_id: str
    outcome: str


@dataclass(frozen=True)
class ServeConnection(Message):
    """Serve requests to the bot's own app; the connection comes along.

    Attributes:
        head: The request, where it was read already.
        early: What came right after it.
        client: Whom it comes from, for the bot.
    """

    head: bytes
    early: bytes
    client: list[Any] | None
    scheme: str


@dataclass(frozen=True)
class LogFeatures(Message):
    """Log the summary of what is possible here."""


@dataclass(frozen=True)
class Close(Message):
    """Tear down and exit."""


# From a worker.


@dataclass(frozen=True)
class Began(Message):
    """Its loop runs."""

    max_bytes = SMALL


@dataclass(frozen=True)
class Idle(Message):
    """It is set up and waits for a session."""

    max_bytes = SMALL

    takes_files: bool


@dataclass(frozen=True)
class Entered(Message):
    """A session has come so far."""

    max_bytes = SMALL

    session_id: str
    state: str


@dataclass(frozen=True)
class Serving(Message):
    """A session's bot serves MoQ."""

    max_bytes = SMALL

    session_id: str
    fingerprints: list[str]


@dataclass(frozen=True)
class Stored(Message):
    """A file was uploaded for a session."""

    max_bytes = 2 * SMALL

    session_id: str
    url: str


@dataclass(frozen=True)
class EventEmitted(Message):
    """A fact of a session, or of the process; checked by whoever reads it."""

    max_bytes = LARGE

    session_id: str | None
    name: str
    fields: dict[str, Any]
    at: float


@dataclass(frozen=True)
class Ended(Message):
    """A session has ended, and all that it held is closed."""

    max_bytes = LARGE

    session_id: str
    outcome: str
    message: str
    seconds: float
    bot_error: list[str] | None = None
    """What the bot raised, then its frames."""

    @classmethod
    def of(cls, session_id: str, report: Report) -> Ended:
        """As JSON has it."""
        bot_error = None if report.bot_error is None else [report.bot_error.summary, *report.bot_error.frames]
        return cls(session_id, report.outcome.value, report.message, report.seconds, bot_error)

    def report(self) -> Report:
        """The report again."""
        return Report(Outcome(self.outcome), self.message, self.seconds, _bot_error(self.bot_error))


@dataclass(frozen=True)
class Reply(Message):
    """To a request: a value, or a refusal as its class, message, field and session id."""

    max_bytes = LARGE

    number: int
    value: Any = None
    refusal: list[str | None] | None = field(default=None)
    failure: list[str] | None = None

    @classmethod
    def failing(cls, number: int, error: Exception) -> Reply:
        """A fault of the worker's, or of the bot's."""
        return cls(number, None, None, [type(error).__name__, str(error)])

    @classmethod
    def refusing(cls, number: int, refusal: Refusal) -> Reply:
        """A refusal, in words for another process."""
        return cls(number, None, [type(refusal).__name__, refusal.message, refusal.field, refusal.session_id])

    def result(self) -> Any:
        """The value.

        Raises:
            Refusal: that of the worker.
            Failed: of the name that the error has there.
        """
        if self.failure is not None:
            name, message = _texts(self.failure, 2)
            raise type((name or "").encode("ascii", "replace").decode().replace("\0", ""), (Failed,), {})(message)
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
    """Whatever a bot's process has sent: no longer than ours would be."""
    if not isinstance(lines, list) or not lines:
        return None
    said, *frames = (str(line)[:MAX_LINE] for line in lines[: 1 + MAX_FRAMES])
    return BotError(said, tuple(frames))


def _texts(values: Any, count: int) -> list[str | None]:
    """So many, whatever a bot's process has sent."""
    if not isinstance(values, list) or len(values) != count:
        raise Failed("the bot's process has answered with something else")
    return [value if value is None else str(value) for value in values]


def encode(message: Message) -> bytes:
    """As it crosses."""
    fields = {f.name: getattr(message, f.name) for f in dataclasses.fields(message)}
    return json.dumps([type(message).__name__, fields], default=_as_base64, separators=(",", ":")).encode()


def decode(content: bytes) -> Message:
    """The message again.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is none.
    """
    kind_name, fields = json.loads(content)
    kind = Message.kinds[kind_name]
    for name in ("head", "early"):
        if name in fields:
            fields[name] = base64.b64decode(fields[name])
    return kind(**fields)


def transport_as_dict(transport: Transport) -> dict[str, Any]:
    """What another process needs of it; a stream's connection is passed on its own."""
    kind = type(transport).__name__
    if isinstance(transport, WebSocketTransport):
        return {"kind": kind, "transport_type": transport.transport_type}
    left_out = {"on_serving"} if isinstance(transport, MoqServer) else set()
    fields = {f.name: getattr(transport, f.name) for f in dataclasses.fields(transport) if f.name not in left_out}
    return {"kind": kind, **fields}


def caller_as_list(caller: Caller) -> list[str | None]:
    """As it crosses."""
    return [caller.peer, caller.traceparent]


def transport_from(content: dict[str, Any], **here: Any) -> Transport:
    """The meeting again; ``here`` are the fields that this process has to add."""
    fields = {name: value for name, value in content.items() if name != "kind"}
    found: Transport = getattr(transports, content["kind"])(**fields, **here)
    return found


def _as_base64(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is not JSON")
