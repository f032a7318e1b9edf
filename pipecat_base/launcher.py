"""One run of the program: starting, ready, draining, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any

from pipecat_base import loader, orchestrator
from pipecat_base.arguments import ArgumentFactory
from pipecat_base.errors import EXIT_FORCED, Refusal, StartupError
from pipecat_base.lifecycle import Lifecycle
from pipecat_base.loader import Bot
from pipecat_base.logs import Logs, logger
from pipecat_base.outcomes import Outcome
from pipecat_base.parts import Parts
from pipecat_base.preparation import Preparation
from pipecat_base.server import FORCED, LEFTOVERS, Server, configuration, http_address
from pipecat_base.sessions import CLOSE_TIMEOUT
from pipecat_base.sessions import State as SessionState
from pipecat_base.settings import Settings
from pipecat_base.signals import Signals
from pipecat_base.watchdog import Watchdog

if TYPE_CHECKING:
    from pipecat_base.development import Development

RELOAD = -1
"""In place of an exit status: the bot has changed, and is to be loaded anew."""
PATIENCE = 1.0
"""Seconds past every bound of its own after which a shutdown that still runs is cut."""


class Launcher:
    """Takes the parts through their states.

    Args:
        settings: What the environment asks for.
        bot: The user's program.
        arguments: Builds what it receives.
        logs: Knows which lines are a session's.
        listener: The socket that is listened on.
        development: For whoever works on the bot; None in a pod.
    """

    def __init__(
        self,
        settings: Settings,
        bot: Bot,
        arguments: ArgumentFactory,
        *,
        logs: Logs,
        listener: Any,
        watchdog: Watchdog,
        signals: Signals,
        development: Development | None = None,
    ) -> None:
        self._settings = settings
        self._bot = bot
        self._arguments = arguments
        self._listener = listener
        self._watchdog = watchdog
        self._signals = signals
        self._development = development
        self._reloading = False
        self._lifecycle = Lifecycle()
        self._parts = Parts(settings, bot, arguments, self._lifecycle, logs)
        self._sessions = self._parts.sessions
        self._warming: asyncio.Future[Any] | None = None
        self._watching: asyncio.Future[Any] | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._preparation = Preparation(
            bot,
            self._parts.app.router.lifespan_context(self._parts.app),
            uploads_folder=settings.uploads_folder,
            setup_timeout=settings.setup_timeout,
            teardown_timeout=settings.teardown_timeout,
        )

    async def run(self) -> int:
        """Serve until a signal comes and the last session has ended; the exit status.

        Raises:
            StartupError: the bot could not be set up.
        """
        server = Server(configuration(self._parts.entrance))
        serving = asyncio.ensure_future(server.serve(sockets=[self._listener]))
        await server.until_started(serving)
        loop = asyncio.get_running_loop()
        self._watchdog.attach(loop, server.protocol, on_beat=self._signals.install)
        try:
            await self._preparation.set_up()
        except StartupError:
            self._lifecycle.failed()
            if self._development is None or not self._development.reload:
                self._watchdog.release()  # else it goes on until the bot is mended
            await server.finish(serving)
            raise
        self._arguments.file_storage = self._preparation.file_storage
        self._parts.entrance.open(self._preparation.state)
        self._signals.install()
        self._signals.deliver_to(lambda count: self._signalled(count, loop))
        if self._parts.memory is not None:
            self._parts.memory.begin()
        self._lifecycle.ready()
        logger.info(f"Ready: {self._bot.name} on {http_address(self._settings.host, self._settings.port)}")
        self._warn_of_settings()
        self._warming = asyncio.ensure_future(self._warm())
        if self._development is not None:
            self._development.greet(self._settings)
            self._watching = asyncio.ensure_future(self._stop_when_changed(self._development))
        await self._stop.wait()
        if not self._reloading:
            orchestrator.tell_token_refresher()
        hurried = False if self._reloading else await self._drain()
        self._watchdog.end_by(self._ending() + PATIENCE, EXIT_FORCED, "the end took too long; forced out")
        if self._parts.webrtc is not None:
            self._parts.webrtc.close()
        if not hurried:
            await self._preparation.tear_down()
        self._lifecycle.stopped()
        self._watchdog.release()
        await server.finish(serving)
        if self._reloading:
            return RELOAD
        logger.info("Stopped")
        return self._signals.exit_status if hurried else 0

    async def _stop_when_changed(self, development: Development) -> None:
        """End for a new start, between sessions."""
        await development.changed()
        for session in self._sessions:
            if session.state is SessionState.WAITING:  # a page that was closed: it has no call that could be cut
                self._sessions.cancel(session.id)
        if len(self._sessions):
            logger.info(f"It is loaded when what runs has ended: {', '.join(s.id for s in self._sessions)}")
        while not self._sessions.idle:  # another one may have begun before this is told that the last has ended
            await self._sessions.wait_until_empty(None)
        self._reloading = not self._stop.is_set()
        self._lifecycle.drain()
        self._stop.set()

    async def _warm(self) -> None:
        """Import what the first caller would wait for, when there is reason to expect one."""
        with contextlib.suppress(Refusal):  # logged where it arose; the first caller gets it
            if self._parts.whatsapp is not None:
                await self._parts.whatsapp.load()
            elif self._parts.webrtc is not None and loader.mentions(self._bot.project, rb"(?i)webrtc"):
                await self._parts.webrtc.load()
        if self._settings.log_features_summary:
            # Not before: two threads that import the same packages can see them half made.
            threading.Thread(target=self._log_features, name="features", daemon=True).start()

    def _warn_of_settings(self) -> None:
        settings = self._settings
        if settings.gateway and settings.public_api_keys and settings.websocket_auth == "none":
            logger.warning("WebSockets need no key: PIPECAT_WEBSOCKET_AUTH=token lets in only who was given a token")
        if settings.websocket_auth == "token" and settings.websocket_secret is None and not settings.gateway:
            logger.warning("PIPECAT_WEBSOCKET_AUTH is token without PIPECAT_WEBSOCKET_SECRET: no WebSocket can get in")
        if self._parts.whatsapp is None and any(
            (
                settings.whatsapp_token,
                settings.whatsapp_phone_number_id,
                settings.whatsapp_app_secret,
                settings.whatsapp_verification_token,
            )
        ):
            logger.warning(self._parts.whatsapp_reason())
        elif self._parts.whatsapp is not None and settings.whatsapp_verification_token is None:
            logger.warning("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN is not set: Meta can not verify this webhook")

    def _signalled(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        """In the signal's handler: only what is safe there."""
        settings = self._settings
        self._lifecycle.drain()
        if count == 1:
            bounds = settings.shutdown_timeout + settings.session_cancel_grace + CLOSE_TIMEOUT + self._ending()
            self._watchdog.end_by(bounds + PATIENCE, EXIT_FORCED, "shutdown deadline passed; forced out")
        else:
            self._watchdog.end_by(FORCED, self._signals.exit_status, "second signal; forced out")
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._stop.set if count == 1 else self._hurry.set)

    def _ending(self) -> float:
        """Seconds that everything after the last session may take."""
        return 2 * self._settings.teardown_timeout + LEFTOVERS + 1

    def _log_features(self) -> None:
        # The module's name appears in users' logs; it is not needed otherwise.
        from feature_manager import FeatureManager

        has_storage = self._bot.create_file_storage is not None
        manager = FeatureManager(self._settings, has_file_storage=has_storage, types=self._arguments.types)
        manager.log_features_summary()

    async def _drain(self) -> bool:
        """Let the sessions end, at the deadline end them; True when a second signal cut it short."""
        settings, signals = self._settings, self._signals
        again = " (Ctrl-C again to stop now)" if signals.interactive else ""
        running = f"sessions running: {len(self._sessions)}, up to {settings.shutdown_timeout:g} s{again}"
        logger.info(f"Draining: {running if len(self._sessions) else 'no sessions'}")
        deadline = signals.at + settings.shutdown_timeout
        notice = 0.0 if signals.interactive else min(settings.drain_notice, settings.shutdown_timeout)
        if await self._unless_hurried(self._wait_for_end(deadline, signals.at + notice)):
            return False
        ended = self._sessions.cancel_all(Outcome.DRAINED)
        if ended:
            logger.warning(f"Ending what is left: {', '.join(ended)}")
        if not self._hurry.is_set():
            await self._unless_hurried(self._sessions.wait_until_empty(settings.session_cancel_grace + CLOSE_TIMEOUT))
        if self._hurry.is_set():
            await self._sessions.wait_until_empty(FORCED / 2)
        return self._hurry.is_set()

    async def _wait_for_end(self, deadline: float, notice_until: float) -> bool:
        ended = await self._sessions.wait_until_empty(max(0.0, deadline - time.monotonic()))
        if ended:
            await asyncio.sleep(max(0.0, notice_until - time.monotonic()))
        return ended

    async def _unless_hurried(self, waiting: Any) -> bool:
        """The wait's answer, or False as soon as a second signal comes."""
        wait = asyncio.ensure_future(waiting)
        hurry = asyncio.ensure_future(self._hurry.wait())
        await asyncio.wait({wait, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if wait.done():
            return bool(wait.result())
        wait.cancel()
        return False
