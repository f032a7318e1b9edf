"""Set up the bot before the first session and tear it down after the last: app lifespans, hooks, file storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

from pipecat_base.bot import hooks, import_errors
from pipecat_base.bot.functions import Bot
from pipecat_base.errors import SetupFailed, SetupTimedOut
from pipecat_base.logs import tracebacks
from pipecat_base.logs.logger import logger


class BotLifespan:
    """Runs the lifespans of the bot's app, ``setup()``, ``create_file_storage()`` and ``teardown()``.

    Args:
        uploads_folder: Stores files for a bot without ``create_file_storage()``.
        setup_timeout: Seconds for everything before the first session.
        teardown_timeout: Seconds for each step after the last.
    """

    def __init__(
        self,
        bot: Bot,
        lifespan: AbstractAsyncContextManager[Any],
        *,
        uploads_folder: str | None,
        setup_timeout: float,
        teardown_timeout: float,
    ) -> None:
        self._bot = bot
        self._lifespan = hooks.ContextTask(lifespan)
        self._uploads_folder = uploads_folder
        self._setup_timeout = setup_timeout
        self._teardown_timeout = teardown_timeout
        self._close_uploads: Callable[[], Coroutine[Any, Any, None]] | None = None
        self.state: dict[str, Any] = {}
        self.file_storage: Any = None

    async def set_up(self) -> None:
        """Enter the lifespans and call the hooks. After a StartupError the lifespans have been left."""
        try:
            await hooks.within(self._setup_timeout, self._run_setup())
        except SetupFailed:
            await self._leave_lifespan()
            raise
        except hooks.TookTooLong:
            await self._leave_lifespan()
            raise SetupTimedOut(
                f"setup() of {self._bot.file.name} was not done within {self._setup_timeout:g} s.",
                "Make it quicker, or raise SETUP_TIMEOUT.",
            ) from None

    async def _run_setup(self) -> None:
        state = await self._guarded("a lifespan", self._lifespan.start())
        if state:
            self.state.update(state)
        if self._bot.setup is not None:
            await self._guarded("setup()", hooks.call(self._bot.setup))
        self.file_storage = await self._guarded("create_file_storage()", self._file_storage())

    async def _guarded(self, name: str, step: Any) -> Any:
        try:
            return await step
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            seen = type(error), error, tracebacks.without_ours(error.__traceback__)
            logger.opt(exception=seen).error(f"{name} failed")
            what = f"raised {type(error).__name__}: {' '.join(str(error).split())}."
            remedy = "The log has the traceback."
            variable = import_errors.unset_variable(error)
            if variable is not None:
                what = f"reads the environment variable {variable}, which is not set."
                remedy = import_errors.SET_VARIABLE
            frames = tracebacks.users_frames(error.__traceback__, self._bot.project)
            raise SetupFailed(f"{name} of {self._bot.file.name} {what}", remedy, frames=frames) from error

    async def _file_storage(self) -> Any:
        if self._bot.create_file_storage is not None:
            # On the loop's thread, as it may make clients that are bound to the loop.
            return self._bot.create_file_storage()
        if self._uploads_folder is None:
            return None
        try:
            from pipecat_base.bot.local_storage import UploadsFolder
        except ImportError:
            logger.warning("PIPECAT_UPLOADS_FOLDER is set, but uploads need pipecat-ai >= 1.13; they are off")
            return None
        folder = UploadsFolder(self._uploads_folder)
        await folder.sweep()
        self._close_uploads = folder.close
        return folder

    async def tear_down(self) -> None:
        """Call ``teardown()`` and leave the lifespans. Always returns."""
        if self._bot.teardown is not None:
            await self._finish("teardown()", hooks.call(self._bot.teardown))
        await self._leave_lifespan()
        if self._close_uploads is not None:
            await self._finish("deleting uploads", self._close_uploads())

    async def _leave_lifespan(self) -> None:
        await self._finish("a lifespan", self._lifespan.stop())

    async def _finish(self, name: str, step: Coroutine[Any, Any, Any]) -> None:
        try:
            await hooks.within(self._teardown_timeout, step)
        except hooks.TookTooLong:
            logger.error(f"{name} was not done within {self._teardown_timeout:g} s (TEARDOWN_TIMEOUT)")
        except BaseException as error:
            logger.opt(exception=True).error(f"{name} failed: {type(error).__name__}")
