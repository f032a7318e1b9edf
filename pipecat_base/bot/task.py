"""Run the user's coroutine. Its exceptions never leave this module, and a bot that does not end is abandoned."""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipecat_base.bot import dev_credentials, import_errors
from pipecat_base.bot.arguments import Arguments
from pipecat_base.bot.callables import kind_of
from pipecat_base.bot.functions import WRITE_ASYNC
from pipecat_base.logs import tracebacks
from pipecat_base.logs.escaping import logged, logged_lines
from pipecat_base.logs.logger import logger
from pipecat_base.server.shared_loop import owned_by
from pipecat_base.sessions.outcome import MAX_LINE, MESSAGES, BotError, Outcome

if TYPE_CHECKING:
    from loguru import Record

MAX_MESSAGE_CHARACTERS = 200

# The outcome and a sentence for the caller, which quotes nothing of the bot's.
Result = tuple[Outcome, str]
# asyncio holds tasks weakly: one that ignores its cancellation must still be seen to end.
ABANDONED: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True)
class BotFunction:
    """The user's function, and all that its tasks have in common.

    Attributes:
        cancel_grace: Seconds until a cancelled bot is abandoned.
        redact: Takes a session's id and a text, and removes what no log line of the session may show.
        disconnects: Exceptions by which a transport reports that the caller has disconnected.
    """

    function: Callable[[Any], Any]
    name: str
    project: str
    cancel_grace: float
    redact: Callable[[str, str], str]
    disconnects: tuple[type[Exception], ...] = ()
    process: int = field(default_factory=os.getpid)

    @property
    def is_in_child(self) -> bool:
        """True in a process that the bot has forked."""
        return os.getpid() != self.process

    def is_disconnect(self, error: BaseException) -> bool:
        """True for a disconnect, and for a group of disconnects only, which a TaskGroup raises."""
        parts = getattr(error, "exceptions", None)
        if isinstance(parts, tuple) and parts:
            return all(isinstance(part, asyncio.CancelledError) or self.is_disconnect(part) for part in parts)
        return isinstance(error, self.disconnects)


class BotTask:
    """A call of the bot.

    Attributes:
        task: Done when the bot has ended; never raises the bot's exception.
        failure: The fields of the event ``failure``, or None.
    """

    def __init__(self, bot: BotFunction, session_id: str, arguments: Arguments) -> None:
        self._bot = bot
        self._session_id = session_id
        self.failure: dict[str, str] | None = None
        self.bot_error: BotError | None = None
        self._is_cancelled = False
        with owned_by(session_id):
            self.task = asyncio.ensure_future(self._contain(arguments))

    def result(self) -> Result:
        if not self.task.cancelled():
            return self.task.result()
        # Before its first step, or by a bot that then returned without a further one.
        self._warn_of_own_cancellation()
        return _of(Outcome.CANCELLED)

    async def cancel(self) -> None:
        bot = self._bot
        self._is_cancelled = True
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=bot.cancel_grace)
        if self.task.done():
            return
        where = tracebacks.where_is_suspended(self.task.get_coro(), bot.project)
        logger.error(
            f"{bot.name} ignored its cancellation for {bot.cancel_grace:g} s"
            f"{f' at {where}' if where else ''}; session {self._session_id} no longer holds a slot"
        )
        ABANDONED.add(self.task)
        self.task.add_done_callback(ABANDONED.discard)
        self.task.cancel()

    async def _contain(self, arguments: Arguments) -> Result:
        status = 1
        try:
            result = await self._call(arguments)
            status = int(result[0] is Outcome.FAILED)
            return result
        finally:
            if self._bot.is_in_child:
                # A process that the bot has forked must not become a second launcher.
                os._exit(status)

    async def _call(self, arguments: Arguments) -> Result:
        name = self._bot.name
        try:
            result: Any = self._bot.function(arguments)
            if inspect.isawaitable(result):
                await result
            else:
                logger.warning(f"{name} returned {kind_of(result)}: nothing to await. {WRITE_ASYNC}")
        except asyncio.CancelledError:
            self._warn_of_own_cancellation()
            return _of(Outcome.CANCELLED)
        except SystemExit as error:
            if self._bot.is_in_child:
                os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            if error.code in (None, 0):
                logger.warning(f"{name} called sys.exit(); that ends its session only. Use return instead.")
                return _of(Outcome.COMPLETED)
            self._note_failure(error, "called sys.exit(); that ends its session only")
            return Outcome.FAILED, "The bot called sys.exit() with a status other than 0."
        except BaseException as error:
            if self._bot.is_disconnect(error):
                return _of(Outcome.DISCONNECTED)
            self._note_failure(error, "failed")
            return Outcome.FAILED, f"The bot raised {type(error).__name__}; its log has the traceback."
        return _of(Outcome.COMPLETED)

    def _warn_of_own_cancellation(self) -> None:
        if not self._is_cancelled:
            logger.warning(f"{self._bot.name} was cancelled by its own code; that ends its session only")

    def _note_failure(self, error: BaseException, what: str) -> None:
        frames = tracebacks.users_frames(error.__traceback__, self._bot.project)
        self.failure = {"exception_type": type(error).__name__, **({"where": frames[-1]} if frames else {})}
        variable = import_errors.unset_variable(error)
        message = _message_of(error) if variable is None else f"the environment variable {variable} is not set"
        text = f"{type(error).__name__}{f': {message}' if message else ''}"
        self.bot_error = BotError(
            self._redact(text)[:MAX_LINE], tuple(self._redact(frame)[:MAX_LINE] for frame in frames)
        )
        self._log_failure(error, self._redact(f"{what}: {text}{f' at {frames[-1]}' if frames else ''}"))
        advice = dev_credentials.advice(error)
        if advice is not None:
            logger.error(advice)

    def _redact(self, text: str) -> str:
        return self._bot.redact(self._session_id, text)

    def _log_failure(self, error: BaseException, what: str) -> None:
        """Log the traceback. Sinks write an exception as it is, so one that holds a secret is logged as text."""
        seen = type(error), error, tracebacks.without_ours(error.__traceback__)
        text = "".join(traceback.format_exception(*seen))
        shown = self._redact(text)
        if shown == text:
            logger.opt(exception=seen, depth=2).error("{} {}", self._bot.name, what)
        else:

            def add_traceback(record: Record) -> None:  # after the message was made one line
                record["message"] += f"\n{logged_lines(shown.rstrip())}"

            logger.patch(add_traceback).opt(depth=2).error("{} {}", self._bot.name, what)


def _message_of(error: BaseException) -> str:
    try:
        return logged(" ".join(str(error).split()), MAX_MESSAGE_CHARACTERS)
    except Exception:  # raised by the __str__ of the bot's own exception
        return ""


def _of(outcome: Outcome) -> Result:
    return outcome, MESSAGES[outcome]
