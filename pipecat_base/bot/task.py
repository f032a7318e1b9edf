"""Runs the user's coroutine: one performance for each session's bot, and for each peer that takes one over.

The only place that awaits it. Whatever it raises stays in here, and one that will not end is given up.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import traceback
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from pipecat_base.bot import dev_credentials, import_errors
from pipecat_base.bot.arguments import Arguments
from pipecat_base.logs import tracebacks
from pipecat_base.logs.escaping import logged, logged_lines
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import MAX_LINE, MESSAGES, BotError, Outcome

if TYPE_CHECKING:
    from loguru import Record

LONGEST_MESSAGE = 200
"""Characters of an exception's message on the line that tells of it; its traceback has all."""

Result = tuple[Outcome, str]
"""How it ended, and a sentence for the caller, which quotes nothing."""


class BotTasks:
    """Begins performances.

    Args:
        bot: The user's coroutine function.
        bot_name: What logs call it.
        project: The user's folder, to show where an unwilling bot is stuck.
        cancel_grace: Seconds that a cancelled bot gets before it is given up.
        redact: Takes out of a text what no line of the session with this id must show.
        disconnects: Exceptions by which a transport tells the bot that the caller is gone.
    """

    def __init__(
        self,
        bot: Callable[[Any], Awaitable[Any]],
        *,
        bot_name: str,
        project: str,
        cancel_grace: float,
        redact: Callable[[str, str], str],
        disconnects: tuple[type[Exception], ...] = (),
    ) -> None:
        self.bot = bot
        self.bot_name = bot_name
        self.project = project
        self.cancel_grace = cancel_grace
        self.redact = redact
        self._disconnects = disconnects
        self._process = os.getpid()
        # asyncio holds tasks weakly: a bot that ignores its cancellation must still be seen to end.
        self._abandoned: set[asyncio.Task[Any]] = set()

    def begin(self, session_id: str, arguments: Arguments) -> BotTask:
        """Call the bot, in a task of its own."""
        return BotTask(self, session_id, arguments)

    @property
    def is_in_child(self) -> bool:
        """Whether this process is one that the bot has forked."""
        return os.getpid() != self._process

    def abandon(self, task: asyncio.Task[Any]) -> None:
        """Wait no longer for a bot that ignores its cancellation."""
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)
        task.cancel()

    def is_disconnect(self, error: BaseException) -> bool:
        """Whether it is the caller's leaving, or a group of nothing else: what a TaskGroup makes of it."""
        parts = getattr(error, "exceptions", None)
        if isinstance(parts, tuple) and parts:
            return all(isinstance(part, asyncio.CancelledError) or self.is_disconnect(part) for part in parts)
        return isinstance(error, self._disconnects)


class BotTask:
    """One call of the bot. Made by :class:`BotTasks`.

    Attributes:
        task: Done when the bot has ended; never raises what it raised.
        failure: Of what it raised, the type and the user's own line, as the fact ``failure`` has them; None without.
        bot_error: The same for whoever works on the bot.
    """

    def __init__(self, bot_tasks: BotTasks, session_id: str, arguments: Arguments) -> None:
        self._bot_tasks = bot_tasks
        self._session_id = session_id
        self.failure: dict[str, str] | None = None
        self.bot_error: BotError | None = None
        self.task = asyncio.ensure_future(self._contain(arguments))

    def result(self) -> Result:
        """Of one that has ended."""
        # Cancelled before its first step, it never reached the place that catches that.
        return _of(Outcome.CANCELLED) if self.task.cancelled() else self.task.result()

    async def cancel(self) -> None:
        """End it; after its grace it is given up."""
        bot_tasks = self._bot_tasks
        self.task.cancel()
        await asyncio.wait({self.task}, timeout=bot_tasks.cancel_grace)
        if self.task.done():
            return
        where = tracebacks.where_is_suspended(self.task.get_coro(), bot_tasks.project)
        logger.error(
            f"{bot_tasks.bot_name} ignored its cancellation for {bot_tasks.cancel_grace:g} s"
            f"{f' at {where}' if where else ''}; session {self._session_id} no longer holds a place"
        )
        bot_tasks.abandon(self.task)

    async def _contain(self, arguments: Arguments) -> Result:
        status = 1
        try:
            result = await self._call(arguments)
            status = int(result[0] is Outcome.FAILED)
            return result
        finally:
            if self._bot_tasks.is_in_child:
                # What the bot has forked came back here: it is no second launcher.
                os._exit(status)

    async def _call(self, arguments: Arguments) -> Result:
        name = self._bot_tasks.bot_name
        try:
            result: Any = self._bot_tasks.bot(arguments)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError:
            return _of(Outcome.CANCELLED)
        except SystemExit as error:
            if self._bot_tasks.is_in_child:
                os._exit(error.code if isinstance(error.code, int) else int(error.code is not None))
            if error.code in (None, 0):
                logger.warning(f"{name} called sys.exit(); that ends its session only. Use return instead.")
                return _of(Outcome.COMPLETED)
            self._note_failure(error, "called sys.exit(); that ends its session only")
            return Outcome.FAILED, "The bot called sys.exit() with a status other than 0."
        except BaseException as error:
            if self._bot_tasks.is_disconnect(error):
                return _of(Outcome.DISCONNECTED)
            self._note_failure(error, "failed")
            return Outcome.FAILED, f"The bot raised {type(error).__name__}; its log has the traceback."
        return _of(Outcome.COMPLETED)

    def _note_failure(self, error: BaseException, what: str) -> None:
        frames = tracebacks.users_frames(error.__traceback__, self._bot_tasks.project)
        self.failure = {"exception_type": type(error).__name__, **({"where": frames[-1]} if frames else {})}
        variable = import_errors.unset_variable(error)
        message = _message_of(error) if variable is None else f"the environment variable {variable} is not set"
        said = f"{type(error).__name__}{f': {message}' if message else ''}"
        self.bot_error = BotError(
            self._redact(said)[:MAX_LINE], tuple(self._redact(frame)[:MAX_LINE] for frame in frames)
        )
        self._log_failure(error, self._redact(f"{what}: {said}{f' at {frames[-1]}' if frames else ''}"))
        advice = dev_credentials.advice(error)
        if advice is not None:
            logger.error(advice)

    def _redact(self, text: str) -> str:
        return self._bot_tasks.redact(self._session_id, text)

    def _log_failure(self, error: BaseException, what: str) -> None:
        """With the traceback. Sinks write an exception as it is: one that holds a secret is for none of them."""
        seen = type(error), error, tracebacks.without_ours(error.__traceback__)
        text = "".join(traceback.format_exception(*seen))
        shown = self._redact(text)
        if shown == text:
            logger.opt(exception=seen, depth=2).error("{} {}", self._bot_tasks.bot_name, what)
        else:

            def add_traceback(record: Record) -> None:  # after the message was made one line
                record["message"] += f"\n{logged_lines(shown.rstrip())}"

            logger.patch(add_traceback).opt(depth=2).error("{} {}", self._bot_tasks.bot_name, what)


def _message_of(error: BaseException) -> str:
    """On one line. The bot's own exceptions may fail to say it."""
    try:
        return logged(" ".join(str(error).split()), LONGEST_MESSAGE)
    except Exception:
        return ""


def _of(outcome: Outcome) -> Result:
    return outcome, MESSAGES[outcome]
