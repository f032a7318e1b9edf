"""Every failure of the launcher, one class each; docs/reference/errors.md is made from them.

A :class:`StartupError` ends the program and has an exit status. A :class:`Refusal` is the response to one request and
has an HTTP status. Codes and statuses are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

# On every refusal, so that a client can tell the launcher's response from a proxy's or the bot's.
LAUNCHER_HEADER = "x-pipecat-launcher"
# Plus the number of the signal that ended a process, as shells and container engines report it (SIGTERM: 143).
EXIT_SIGNAL_BASE = 128


class StartupError(Exception):
    """The program cannot serve this bot. ``frames`` are the user's own, outermost first."""

    code: ClassVar[str]
    exit_status: ClassVar[int]
    meaning: ClassVar[str]

    def __init__(self, message: str, remedy: str, *, frames: Sequence[str] = ()) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy
        self.frames = tuple(frames)

    def report(self) -> str:
        lines = [f"pipecat-base: {self.code}: {self.message} {self.remedy}"]
        lines += [f"  {frame}" for frame in self.frames]
        return "\n".join(lines)

    def refusal(self) -> str:
        """For the platform: one line, in the form of dailyco/pipecat-base."""
        return f"Refusing to start: {' '.join(str(self).split())}"


class BotNotFound(StartupError):
    code, exit_status, meaning = "bot_not_found", 10, "there is no file at the bot's path, or it cannot be read"


class BotIsFolder(StartupError):
    code, exit_status, meaning = "bot_is_folder", 11, "the bot's path is a folder"


class BotSyntaxError(StartupError):
    code, exit_status, meaning = "bot_syntax_error", 12, "the bot, or a module it imports, does not parse"


class DependencyMissing(StartupError):
    code, exit_status, meaning = "dependency_missing", 13, "a package that the bot imports is not installed"


class BotImportFailed(StartupError):
    code, exit_status, meaning = "bot_import_failed", 14, "an import in the bot or in one of its modules failed"


class BotRaised(StartupError):
    code, exit_status, meaning = "bot_raised", 15, "the bot raised an exception while it was imported"


class BotExited(StartupError):
    code, exit_status, meaning = "bot_exited", 16, "the bot called sys.exit() while it was imported"


class BotFunctionMissing(StartupError):
    code, exit_status, meaning = "bot_function_missing", 17, "the file has no `bot`"


class BotFunctionInvalid(StartupError):
    code, exit_status, meaning = (
        "bot_function_invalid",
        18,
        "`bot` is None, a class or a generator, or no function at all",
    )


class BotArityInvalid(StartupError):
    code, exit_status, meaning = "bot_arity_invalid", 19, "`bot` does not take exactly one positional argument"


class HookInvalid(StartupError):
    code, exit_status, meaning = "hook_invalid", 20, "an optional hook is not a function of the right kind"


class SetupFailed(StartupError):
    code, exit_status, meaning = "setup_failed", 21, "setup(), a lifespan or create_file_storage() raised an exception"


class SetupTimedOut(StartupError):
    code, exit_status, meaning = "setup_timed_out", 22, "setup() took longer than SETUP_TIMEOUT"


class PortUnavailable(StartupError):
    code, exit_status, meaning = "port_unavailable", 23, "the launcher cannot listen on PIPECAT_HOST and PORT"


class SettingsInvalid(StartupError):
    code, exit_status, meaning = "settings_invalid", 24, "an environment variable has a wrong value"

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines), "")
        self.lines = tuple(lines)

    def report(self) -> str:
        return "\n".join(f"pipecat-base: {self.code}: {line}" for line in self.lines)


class PackagesConflict(StartupError):
    code, exit_status, meaning = (
        "packages_conflict",
        25,
        "a package of the bot's and one of the launcher's are incompatible",
    )


class ImportTimedOut(StartupError):
    code, exit_status, meaning = "import_timed_out", 26, "the import of the bot took longer than PIPECAT_IMPORT_TIMEOUT"


class PipecatUnusable(StartupError):
    code, exit_status, meaning = "pipecat_unusable", 78, "pipecat-ai or pipecatcloud is too old or broken"


OTHER_EXIT_STATUSES: Mapping[int, str] = {
    0: "stopped by a signal: every session had ended, or was ended at SHUTDOWN_TIMEOUT",
    2: "wrong command line",
    70: "forced out: the bot blocked the event loop past the shutdown deadline",
    130: "interrupted: Ctrl-C before it was ready, or twice",
    137: "killed: in a container mostly because its memory was full (docker inspect shows OOMKilled)",
    141: "the reader of its output has closed the pipe, for example `head -1`",
    143: "SIGTERM before it was ready, or twice; the container's own status is 0 then",
}
EXIT_FORCED = 70
EXIT_READER_GONE = 141  # as if ended by SIGPIPE


class Refusal(Exception):
    """The response to a request that will not become a session.

    Args:
        message: A sentence for the caller, without secrets or values of the request's body.
        field: The header, query parameter or body key that is at fault.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    meaning: ClassVar[str]
    advice: ClassVar[str]
    retry_after: ClassVar[int | None] = None  # seconds
    # WARNING for a caller who was turned away, ERROR if the caller is not at fault.
    log_level: ClassVar[str] = "INFO"

    def __init__(self, message: str, *, field: str | None = None, session_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.session_id = session_id

    def log_text(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        error: dict[str, str | None] = {"code": self.code, "message": self.message, "session_id": self.session_id}
        if self.field is not None:
            error["field"] = self.field
        return {"error": error}

    def headers(self, launcher: str) -> dict[str, str]:
        headers = {LAUNCHER_HEADER: launcher}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers


class Malformed(Refusal):
    code, status = "malformed", 400
    meaning = "The body, a header or a query parameter is not what it should be; `field` names it."
    advice = "Correct the request. The message says what was expected."


class FlowUnusable(Refusal):
    """The reason may quote the file's path, so it goes to the log only."""

    code, status, log_level = "flow_unusable", 403, "ERROR"
    meaning = "The file with this WebSocket session's flow cannot be used."
    advice = "Read the log for the reason. `X-Pcc-Flow-Config-File` must name a file in `PCC_SESSION_FILES_DIR`."

    def __init__(self, reason: str, *, session_id: str) -> None:
        super().__init__("This session's flow cannot be used here; the log says why.", session_id=session_id)
        self.reason = reason

    def log_text(self) -> str:
        return self.reason


class MoqRefused(Refusal):
    code, status, log_level = "moq_refused", 400, "ERROR"
    meaning = "A MoQ session without a relay or a namespace, or where MoQ is not available."
    advice = "Read the message. `pipecat-base check` says what MoQ needs."

    def __init__(self, reason: str, *, session_id: str) -> None:
        super().__init__(f"Refusing MoQ session {session_id}: {reason}", session_id=session_id)


class TooLarge(Refusal):
    code, status = "too_large", 413
    meaning = (
        "The body is larger than `MAX_BODY_BYTES` or has too many values, the file is larger than "
        "`PIPECAT_MAX_UPLOAD_BYTES`, or the session already has 100 files."
    )
    advice = "Send less, or raise the limit."


class HeadTooLarge(Refusal):
    code, status = "head_too_large", 431
    meaning = "The request's head is larger than `PIPECAT_MAX_HEAD_BYTES`, or has more than 128 headers."
    advice = "Send a smaller `?body=` or fewer headers, or raise the limit."


class TooSlow(Refusal):
    code, status = "too_slow", 408
    meaning = "The head took longer than `PIPECAT_HEAD_TIMEOUT`, or the body longer than `PIPECAT_BODY_TIMEOUT`."
    advice = "Send it faster, or let a proxy buffer slow requests."


class TooBusy(Refusal):
    code, status, retry_after = "too_busy", 503, 1
    meaning = (
        "`PIPECAT_MAX_CONNECTIONS` are open, or unfinished requests and messages fill `PIPECAT_MAX_UNFINISHED_BYTES`."
    )
    advice = "Retry. If it persists, look for a flood, or raise the limit."


class NotServed(Refusal):
    code, status = "not_served", 404
    meaning = (
        "Nothing is served at this path: something is not installed or not configured, or no such WebSocket exists."
    )
    advice = "Read the message: it names what is missing."


class UnknownAgent(Refusal):
    code, status = "unknown_agent", 404
    meaning = "The gateway: the path names another agent than `PIPECAT_AGENT_NAME`."
    advice = "Use that name, or unset `PIPECAT_AGENT_NAME` to accept every name."


class UnknownSession(Refusal):
    code, status = "unknown_session", 404
    meaning = "The gateway: there is no session with this id, or it has ended."
    advice = "Start a new session."

    def __init__(self, session_id: str, message: str = "There is no session of this id, or it has ended.") -> None:
        super().__init__(message, session_id=session_id)


class UnknownPeer(Refusal):
    code, status = "unknown_peer", 404
    meaning = "The offer or its candidates name a WebRTC connection that does not exist or has ended."
    advice = "Send a new offer without `pc_id`."


class NoOffer(Refusal):
    code, status = "no_offer", 504
    meaning = "No WebRTC offer arrived for the waiting `POST /bot` within `WEBRTC_OFFER_TIMEOUT`."
    advice = "Check that the client sends its offer, with the same session id."


class DuplicateSession(Refusal):
    code, status = "duplicate_session", 409
    meaning = "A session with this `x-daily-session-id` is running."
    advice = "Use a new id, or wait until that session has ended."


class AtCapacity(Refusal):
    code, status, retry_after, log_level = "at_capacity", 429, 5, "WARNING"
    meaning = (
        "`MAX_SESSIONS` are running. The gateway: 1,000 sessions that `/start` has promised to WebSocket clients, or"
        " 64 MiB of their bodies, are waiting for these clients."
    )
    advice = "Retry later or on another pod; add pods, or raise `MAX_SESSIONS`. A promise is kept for 300 seconds."


class Starting(Refusal):
    code, status, retry_after = "starting", 503, 1
    meaning = "The bot is still being imported or set up."
    advice = "Retry. Send no requests until `/readyz` answers 200."


class Draining(Refusal):
    code, status, retry_after, log_level = "draining", 503, 1, "WARNING"
    meaning = "The launcher is shutting down and takes no new sessions."
    advice = "Retry on another pod."


class NotRunning(Refusal):
    code, status, retry_after = "not_running", 503, 1
    meaning = "The session exists, but its bot is not running yet."
    advice = "Retry after a second."


class NoProcess(Refusal):
    code, status, retry_after, log_level = "no_process", 503, 1, "WARNING"
    meaning = "With `PIPECAT_ISOLATION=process`: no process was ready within `PIPECAT_PROCESS_TIMEOUT`."
    advice = "Retry. If it persists, raise `PIPECAT_IDLE_PROCESSES`, or make `setup()` faster."


class NoUdpPort(Refusal):
    code, status, retry_after, log_level = "no_udp_port", 503, 5, "WARNING"
    meaning = "No port of `PIPECAT_UDP_PORTS` is free."
    advice = "Retry later or on another pod; permit more ports, or set `MAX_SESSIONS` to their number."


class NotReached(Refusal):
    code, status = "not_reached", 502
    meaning = "Daily did not respond or created no room, or the bot's process ended before it responded."
    advice = "Read the message and the log."


class StorageFailed(Refusal):
    code, status = "storage_failed", 500
    meaning = "Your file storage raised an exception."
    advice = "Read the log: it has the traceback."


class PodTokenMissing(Refusal):
    code, status = "pod_token_missing", 401
    meaning = "Only the gateway may use this route, and the request does not carry the value of `PIPECAT_POD_TOKEN`."
    advice = "Go through the gateway, or send `X-Pipecat-Pod-Token`."


class NotSupported(Refusal):
    code, status = "not_supported", 501
    meaning = (
        "This transport, or Daily, is not installed or not configured here. Or only Pipecat Cloud has this part of"
        " its API."
    )
    advice = "Read the message: it names the package or the setting, or what a gateway has instead."


class KeyMissing(Refusal):
    code, status = "key_missing", 401
    meaning = "The gateway: no API key, or an unknown one. If keys are set, your own routes need one too."
    advice = "Send `Authorization: Bearer KEY`."


class KeyNotPrivate(Refusal):
    code, status = "key_not_private", 403
    meaning = "The gateway: a public key where a private one is needed."
    advice = "Use a key from `PIPECAT_PRIVATE_API_KEYS`."


class SignatureMissing(Refusal):
    code, status = "signature_missing", 401
    meaning = "A webhook without the signature that it must have."
    advice = "Configure the provider to sign, and set its secret here."


class SignatureWrong(Refusal):
    code, status = "signature_wrong", 403
    meaning = "The webhook's signature does not match the secret that is set here, or is too old."
    advice = "Check the secret, `PIPECAT_PUBLIC_URL` (Twilio and Plivo sign the address) and the clock."


class Unauthorized(Refusal):
    """pipecat's runner closes with 4003 before accept, which servers send as HTTP 403."""

    code, status = "unauthorized", 403
    meaning = (
        "The WebSocket's token or origin is not accepted, or a verification token is wrong. Without keys: the "
        "request uses another host name, or comes from another site's page."
    )
    advice = "Get a fresh token; check `PIPECAT_ALLOWED_ORIGINS`; for access from elsewhere, set keys."


def startup_errors() -> list[type[StartupError]]:
    return sorted(StartupError.__subclasses__(), key=lambda error: error.exit_status)


def refusals() -> list[type[Refusal]]:
    return sorted(Refusal.__subclasses__(), key=lambda refusal: (refusal.status, refusal.code))


def refusal_codes() -> list[str]:
    return sorted(refusal.code for refusal in Refusal.__subclasses__())


def refusal_from(body: Any) -> Refusal | None:
    """Make the refusal whose :meth:`Refusal.body` this is; None for anything else."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None
    kind = next((kind for kind in Refusal.__subclasses__() if kind.code == error.get("code")), None)
    if kind is None:
        return None
    texts = {name: str(error[name]) for name in ("field", "session_id") if error.get(name) is not None}
    refusal = kind.__new__(kind)  # some make their message themselves
    Refusal.__init__(refusal, str(error.get("message") or ""), **texts)
    if isinstance(refusal, FlowUnusable):
        refusal.reason = "the log of its process says why"
    return refusal
