"""Every way this launcher fails, one class each.

Two families. A :class:`StartupError` ends the program: it has a stable code, a line that says what is wrong and how
to mend it, and an exit status of its own. A :class:`Refusal` answers one request: it has a stable code, a message
and an HTTP status, and nothing else is touched by it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

LAUNCHER_HEADER = "x-pipecat-launcher"
"""Present on every refusal, so that a caller can tell the launcher's answer from a proxy's or the bot's own."""

EXIT_SIGNAL_BASE = 128
"""Ended by a signal: this plus its number, as shells and container engines report it (SIGTERM: 143)."""


class StartupError(Exception):
    """The program cannot serve this bot.

    ``frames`` are lines of the user's own stack, outermost first; never the launcher's.
    """

    code: ClassVar[str]
    exit_status: ClassVar[int]
    meaning: ClassVar[str]

    def __init__(self, message: str, remedy: str, *, frames: Sequence[str] = ()) -> None:
        super().__init__(f"{message} {remedy}")
        self.message = message
        self.remedy = remedy
        self.frames = tuple(frames)

    def report(self) -> str:
        """What a person reads: one line, then the user's frames, indented."""
        lines = [f"pipecat-base: {self.code}: {self.message} {self.remedy}"]
        lines += [f"  {frame}" for frame in self.frames]
        return "\n".join(lines)

    def refusal(self) -> str:
        """What the platform reads: one line, in the replaced image's form."""
        return f"Refusing to start: {' '.join(str(self).split())}"


class BotNotFound(StartupError):
    code, exit_status, meaning = "bot_not_found", 10, "there is no file at the bot's path, or it can not be read"


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
    code, exit_status, meaning = "bot_function_invalid", 18, "`bot` is None, not async, or not a function at all"


class BotArityInvalid(StartupError):
    code, exit_status, meaning = "bot_arity_invalid", 19, "`bot` does not take exactly one positional argument"


class HookInvalid(StartupError):
    code, exit_status, meaning = "hook_invalid", 20, "an optional hook is not a function of the right kind"


class SetupFailed(StartupError):
    code, exit_status, meaning = "setup_failed", 21, "setup(), a lifespan or create_file_storage() raised"


class SetupTimedOut(StartupError):
    code, exit_status, meaning = "setup_timed_out", 22, "setup() was not done within SETUP_TIMEOUT"


class PortUnavailable(StartupError):
    code, exit_status, meaning = "port_unavailable", 23, "PIPECAT_HOST and PORT cannot be listened on"


class SettingsInvalid(StartupError):
    code, exit_status, meaning = "settings_invalid", 24, "an environment variable has a wrong value"

    def __init__(self, lines: Sequence[str]) -> None:
        super().__init__("; ".join(lines), "")
        self.lines = tuple(lines)

    def report(self) -> str:
        """One line for each wrong variable, with nothing before its name."""
        return "\n".join(self.lines)


class PackagesConflict(StartupError):
    code, exit_status, meaning = "packages_conflict", 25, "a package of the bot's and one of the launcher's do not fit"


class PipecatUnusable(StartupError):
    code, exit_status, meaning = "pipecat_unusable", 78, "pipecat-ai or pipecatcloud is too old or broken"


OTHER_EXIT_STATUSES: Mapping[int, str] = {
    0: "stopped as asked: every session had ended, or was ended at SHUTDOWN_TIMEOUT",
    2: "wrong command line",
    70: "forced out: the bot blocked the event loop past the shutdown deadline",
    130: "interrupted: Ctrl-C before it was ready, or twice",
    137: "killed from outside: in a container most often because its memory was full (docker inspect says OOMKilled)",
    143: "SIGTERM before it was ready, or twice; the container's own status is 0 then",
}
EXIT_FORCED = 70


class Refusal(Exception):
    """The answer to one request that will not become a session.

    Args:
        message: One sentence for the caller. Never holds a secret or a value of the request's body.
        field: The header, query parameter or body key that is at fault, if one is.
        session_id: The session this is about, when it is known.
    """

    code: ClassVar[str]
    status: ClassVar[int]
    retry_after: ClassVar[int | None] = None
    """Seconds, sent as ``Retry-After``."""
    log_level: ClassVar[str] = "INFO"
    """ERROR where it is not the caller who is at fault: an operator wants to see it."""

    def __init__(self, message: str, *, field: str | None = None, session_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.session_id = session_id

    def said_to_log(self) -> str:
        """The reason, for the log."""
        return f"{self.field}: {self.message}" if self.field else self.message

    def body(self) -> dict[str, dict[str, str | None]]:
        """The JSON that the caller gets."""
        error: dict[str, str | None] = {"code": self.code, "message": self.message, "session_id": self.session_id}
        if self.field is not None:
            error["field"] = self.field
        return {"error": error}

    def headers(self, launcher: str) -> dict[str, str]:
        """``launcher`` is this program's name and version."""
        headers = {LAUNCHER_HEADER: launcher}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        return headers


class Malformed(Refusal):
    code, status = "malformed", 400


class FlowUnusable(Refusal):
    """The file that the platform names for a session's flow cannot be used. Its path is for the log alone."""

    code, status, log_level = "flow_unusable", 403, "ERROR"

    def __init__(self, reason: str, *, session_id: str) -> None:
        super().__init__("This session's flow cannot be used here; the log says why.", session_id=session_id)
        self._reason = reason

    def said_to_log(self) -> str:
        return self._reason


class MoqRefused(Refusal):
    """A MoQ session that cannot be run here, or was started without a relay."""

    code, status, log_level = "moq_refused", 400, "ERROR"

    def __init__(self, reason: str, *, session_id: str) -> None:
        super().__init__(f"Refusing MoQ session {session_id}: {reason}", session_id=session_id)


class TooLarge(Refusal):
    code, status = "too_large", 413


class NotServed(Refusal):
    code, status = "not_served", 404


class UnknownAgent(Refusal):
    code, status = "unknown_agent", 404


class UnknownSession(Refusal):
    code, status = "unknown_session", 404

    def __init__(self, session_id: str, message: str = "There is no session of this id, or it has ended.") -> None:
        super().__init__(message, session_id=session_id)


class UnknownPeer(Refusal):
    code, status = "unknown_peer", 404


class NoOffer(Refusal):
    code, status = "no_offer", 504


class DuplicateSession(Refusal):
    code, status = "duplicate_session", 409


class AtCapacity(Refusal):
    code, status, retry_after = "at_capacity", 429, 5


class Starting(Refusal):
    code, status, retry_after = "starting", 503, 1


class Draining(Refusal):
    code, status, retry_after = "draining", 503, 1


class NotRunning(Refusal):
    code, status, retry_after = "not_running", 503, 1


class NotReached(Refusal):
    code, status = "not_reached", 502


class StorageFailed(Refusal):
    code, status = "storage_failed", 500


class PodTokenMissing(Refusal):
    code, status = "pod_token_missing", 401


class NotSupported(Refusal):
    code, status = "not_supported", 501


class KeyMissing(Refusal):
    code, status = "key_missing", 401


class SignatureMissing(Refusal):
    code, status = "signature_missing", 401


class SignatureWrong(Refusal):
    code, status = "signature_wrong", 403


class Unauthorized(Refusal):
    """pipecat's own runner closes with 4003 before accept, which servers send as HTTP 403."""

    code, status = "unauthorized", 403


def startup_errors() -> list[type[StartupError]]:
    """Every startup error, by exit status."""
    return sorted(StartupError.__subclasses__(), key=lambda error: error.exit_status)
