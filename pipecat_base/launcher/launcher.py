"""The launcher from start to stop: starting, ready, draining, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipecat_base.api import assembly
from pipecat_base.config import environment
from pipecat_base.config.settings import Settings
from pipecat_base.errors import EXIT_FORCED, Refusal, StartupError
from pipecat_base.launcher import platform
from pipecat_base.launcher.frontend import Frontend, frontend
from pipecat_base.launcher.telemetry import telemetry
from pipecat_base.logs.logger import logger
from pipecat_base.server.lifecycle import Lifecycle, LifecycleState
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.server.loop_monitor import watch_lag
from pipecat_base.server.server import FORCED_EXIT_SECONDS, Server, http_address
from pipecat_base.server.signals import Signals
from pipecat_base.server.startup_problem import StartupProblem
from pipecat_base.server.watchdog import Watchdog
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.registry import CLOSE_TIMEOUT
from pipecat_base.telemetry.bus import EventBus

if TYPE_CHECKING:
    from pipecat_base.launcher.backend import Backend
    from pipecat_base.launcher.reload import Development

Renew = Callable[[Mapping[str, str]], Awaitable[None]]
SINKS_TIMEOUT_SECONDS = 5.0  # for event sinks to deliver pending events at the end
MAX_SESSIONS_NAMED = 5
FORCE_AFTER_SECONDS = 1.0  # after all other limits of a shutdown


class Launcher:
    """Takes the parts through their states. ``development`` is what `dev` adds."""

    def __init__(
        self,
        settings: Settings,
        make_backend: Callable[[Lifecycle, EventBus], Backend],
        *,
        listener: Any,
        watchdog: Watchdog,
        signals: Signals,
        development: Development | None = None,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._watchdog = watchdog
        self._signals = signals
        self._development = development
        self._lifecycle = Lifecycle()
        self._telemetry = telemetry(settings)
        if self._telemetry.metrics is not None:
            self._telemetry.metrics.watch_state([s.value for s in LifecycleState], lambda: self._lifecycle.state.value)
        self._event_bus = self._telemetry.event_bus
        stage = make_backend(self._lifecycle, self._event_bus)
        self._backend = stage
        if self._telemetry.metrics is not None and stage.count_processes is not None:
            self._telemetry.metrics.watch_processes(stage.count_processes)
        self._pod = stage.pod
        self._ws = stage.ws
        self._renew = stage.renew
        self._registry = self._pod.registry
        self._shows_bot_errors = development is not None and settings.gateway.serves_this_machine_only
        self._frontend = self._make_frontend()
        self._warming: asyncio.Future[Any] | None = None
        self._reloading: asyncio.Future[Any] | None = None
        self._watching_lag: asyncio.Future[Any] | None = None
        self._stop = asyncio.Event()
        self._second_signal = asyncio.Event()

    async def run(self) -> int:
        """Serve until a signal arrives and the last session has ended; return the exit status."""
        server = Server(self._frontend.entrance, self._settings.limits, self._ws, on_refusal=self._event_bus.on_refusal)
        serving = asyncio.ensure_future(server.serve(sockets=[self._listener]))
        await server.wait_started(serving)
        loop = asyncio.get_running_loop()
        self._watchdog.attach(loop, server.protocol, on_beat=self._signals.install)
        state = await self._open(server, serving)
        self._frontend.entrance.open(state)
        self._signals.install()
        self._signals.deliver_to(lambda count: self._on_signal(count, loop))
        self._lifecycle.ready()
        if self._telemetry.metrics is not None:
            self._watching_lag = asyncio.ensure_future(
                watch_lag(lambda lag: self._event_bus.emit("loop_lag", None, lag))
            )
        logger.info(
            f"Ready: {self._pod.about.name} on {http_address(self._settings.server.host, self._settings.server.port)}"
        )
        self._warn_of_settings()
        self._warming = asyncio.ensure_future(self._warm_up())
        if self._development is not None:
            self._development.print_banner(self._settings)
            if self._renew is not None and self._development.reload:
                self._reloading = asyncio.ensure_future(self._follow_changes(self._development, self._renew))
        await self._stop.wait()
        for task in (self._reloading, self._watching_lag):
            if task is not None:
                task.cancel()
        platform.notify_token_refresher()
        hurried = await self._drain()
        self._force_exit_after(self._settings.shutdown.exit_grace + self._ending_seconds())
        if self._backend.wait_for_leftovers is not None and not hurried:
            await self._until_second_signal(self._backend.wait_for_leftovers())
            hurried = self._second_signal.is_set()
            self._force_exit_after(self._ending_seconds())
        self._pod.stop()
        if not hurried:
            await self._pod.close()
        self._lifecycle.stopped()
        self._watchdog.stop_accepting()
        await server.finish(serving)
        await asyncio.to_thread(self._telemetry.close, SINKS_TIMEOUT_SECONDS)
        logger.info("Stopped")
        return self._signals.exit_status if hurried else 0

    def _make_frontend(self, before: Frontend | None = None) -> Frontend:
        return frontend(
            self._settings,
            self._backend,
            self._lifecycle,
            self._telemetry,
            before,
            shows_bot_errors=self._shows_bot_errors,
            is_dev=self._development is not None,
        )

    async def _open(self, server: Server, serving: asyncio.Task[None]) -> Mapping[str, Any]:
        """Set the bot up; with reload, wait until a bot that cannot be is fixed. Raises StartupError."""
        development = self._development
        try:
            return await self._pod.open()
        except StartupError as error:
            if development is None or self._renew is None or not development.reload:
                self._lifecycle.failed()
                self._watchdog.stop_accepting()
                await server.finish(serving)
                raise
            self._frontend.entrance.show_problem(development.startup_problem(error, self._settings))
            development.print_error(error)
        while not await self._reload(development, self._renew):
            pass
        return {}

    async def _follow_changes(self, development: Development, renew: Renew) -> None:
        while True:
            await self._reload(development, renew)

    async def _reload(self, development: Development, renew: Renew) -> bool:
        await development.changed()
        while True:
            renewing = asyncio.ensure_future(self._load(development, renew))
            changing = asyncio.ensure_future(development.changed())
            await asyncio.wait({renewing, changing}, return_when=asyncio.FIRST_COMPLETED)
            if not changing.done():
                changing.cancel()
                return renewing.result()
            renewing.cancel()  # newer code replaces it, also if it hangs
            await asyncio.wait({renewing})

    async def _load(self, development: Development, renew: Renew) -> bool:
        try:
            development.env_file.read()
            development.log_settings()
            await renew(environment.read())
            renewed = self._make_frontend(self._frontend)
        except StartupError as error:
            self._show_problem(development.startup_problem(error, self._settings))
            development.print_error(error)
            return False
        except Exception as error:
            logger.opt(exception=True).error(f"The change was not loaded: {type(error).__name__}")
            self._show_problem(StartupProblem("The change could not be loaded; see the terminal."))
            return False
        self._lifecycle.problem = None
        entrance = self._frontend.entrance
        entrance.swap(renewed.entrance)
        self._frontend = replace(renewed, entrance=entrance)
        logger.info(f"Reloaded: {self._pod.about.name}{self._old_code_note()}")
        if self._lifecycle.state is LifecycleState.READY:
            self._warming = asyncio.ensure_future(self._warm_up())
        return True

    def _old_code_note(self) -> str:
        found = [session for i in self._pod.outdated_sessions() if (session := self._registry.get(i)) is not None]
        if not found:
            return ""
        named = ", ".join(f"{s.id} ({s.state.value}, {s.age:.0f} s)" for s in found[:MAX_SESSIONS_NAMED])
        more = f" and {len(found) - MAX_SESSIONS_NAMED} more" if len(found) > MAX_SESSIONS_NAMED else ""
        return (
            f"; the old code still runs for {named}{more}: wait for them to end, or stop them with DELETE /sessions/ID "
            "or on the page"
        )

    def _show_problem(self, problem: StartupProblem) -> None:
        if self._lifecycle.state is LifecycleState.STARTING:
            self._frontend.entrance.show_problem(problem)
        else:
            reason = f"{problem.reason} New calls still run the code before it."
            self._lifecycle.problem = replace(problem, reason=reason)

    async def _warm_up(self) -> None:
        """Import what the first caller would wait for; WebRTC and WhatsApp only if they are likely to be used."""
        with contextlib.suppress(Refusal):  # logged where it was raised; the first caller gets it
            if self._frontend.whatsapp is not None:
                await self._frontend.whatsapp.load()
            await self._pod.warm_up(webrtc=self._frontend.whatsapp is not None)
        if self._settings.logs.features_summary:
            # Not before: two threads that import the same packages may see them half initialised.
            self._pod.log_features()

    def _warn_of_settings(self) -> None:
        settings = self._settings
        if settings.gateway.is_enabled and settings.gateway.has_keys and settings.websockets.auth == "none":
            logger.warning("WebSockets need no key: PIPECAT_WEBSOCKET_AUTH=token admits only clients with a token")
        if (
            settings.websockets.auth == "token"
            and settings.websockets.secret is None
            and not settings.gateway.is_enabled
        ):
            logger.warning(
                "PIPECAT_WEBSOCKET_AUTH is token without PIPECAT_WEBSOCKET_SECRET: every WebSocket is refused"
            )
        if (
            settings.gateway.is_enabled
            and settings.providers.twilio_auth_token is not None
            and settings.gateway.public_url is None
        ):
            logger.warning(
                "Twilio's signatures are checked against the address that each request's headers name: set "
                "PIPECAT_PUBLIC_URL to the address that Twilio calls"
            )
        if self._frontend.whatsapp is None and any(
            (
                settings.whatsapp.token,
                settings.whatsapp.phone_number_id,
                settings.whatsapp.app_secret,
                settings.whatsapp.verification_token,
            )
        ):
            logger.warning(assembly.why_no_whatsapp(settings))
        elif (
            self._frontend.whatsapp is not None
            and settings.whatsapp.verification_token is None
            and not settings.gateway.public_api_keys
        ):
            logger.warning("WHATSAPP_WEBHOOK_VERIFICATION_TOKEN is not set: Meta cannot verify this webhook")

    def _on_signal(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in the signal handler: only what is safe there."""
        settings = self._settings
        self._lifecycle.drain(takes_sessions=count == 1 and settings.shutdown.takes_calls)
        if count == 1:
            bounds = settings.shutdown.timeout + settings.sessions.cancel_grace + CLOSE_TIMEOUT + self._ending_seconds()
            self._watchdog.set_deadline(
                bounds + FORCE_AFTER_SECONDS, EXIT_FORCED, "shutdown deadline passed; forced out"
            )
        else:
            self._watchdog.set_deadline(FORCED_EXIT_SECONDS, self._signals.exit_status, "second signal; forced out")
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._stop.set if count == 1 else self._second_signal.set)

    def _force_exit_after(self, seconds: float) -> None:
        self._watchdog.set_deadline(
            seconds + FORCE_AFTER_SECONDS, EXIT_FORCED, "shutdown took too long; forcing the exit"
        )

    def _ending_seconds(self) -> float:
        """Upper bound in seconds of everything after the last session."""
        readers = SINKS_TIMEOUT_SECONDS if self._event_bus.has_sinks else 0
        return 2 * self._settings.shutdown.teardown_timeout + FINAL_REQUESTS_SECONDS + readers + 1

    async def _drain(self) -> bool:
        """Let the sessions end, cancel them at the deadline; return whether a second signal cut that short."""
        settings, signals = self._settings, self._signals
        if signals.interactive:
            self._end_waiting()
        again = " (Ctrl-C again to stop now)" if signals.interactive else ""
        running = f"sessions running: {len(self._registry)}, up to {settings.shutdown.timeout:g} s{again}"
        deadline = signals.at + settings.shutdown.timeout
        notice = 0.0 if signals.interactive else min(settings.shutdown.drain_notice, settings.shutdown.timeout)
        taken = f"; new calls are taken for {notice:g} s" if settings.shutdown.takes_calls and notice else ""
        logger.info(f"Draining: {running if len(self._registry) else 'no sessions'}{taken}")
        if await self._until_second_signal(self._wait_for_end(deadline, signals.at + notice)):
            return False
        ended = self._registry.cancel_all(Outcome.DRAINED)
        if ended:
            logger.warning(f"Cancelling the remaining sessions: {', '.join(ended)}")
        if not self._second_signal.is_set():
            await self._until_second_signal(self._registry.until_empty(settings.sessions.cancel_grace + CLOSE_TIMEOUT))
        if self._second_signal.is_set():
            await self._registry.until_empty(FORCED_EXIT_SECONDS / 2)
        return self._second_signal.is_set()

    def _end_waiting(self) -> None:
        """Ctrl-C waits for running calls, not for callers who have not come."""
        for session in self._registry:
            if session.is_evictable:
                self._registry.cancel(session.id, Outcome.DRAINED)

    async def _wait_for_end(self, deadline: float, notice_until: float) -> bool:
        if self._settings.shutdown.takes_calls:
            await asyncio.sleep(max(0.0, notice_until - time.monotonic()))
            self._lifecycle.drain()
        ended = await self._registry.until_empty(max(0.0, deadline - time.monotonic()))
        if ended:
            await asyncio.sleep(max(0.0, notice_until - time.monotonic()))
        return ended

    async def _until_second_signal(self, waiting: Any) -> bool:
        """Return the result, or False as soon as a second signal arrives."""
        wait = asyncio.ensure_future(waiting)
        hurry = asyncio.ensure_future(self._second_signal.wait())
        await asyncio.wait({wait, hurry}, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        if wait.done():
            return bool(wait.result())
        wait.cancel()
        return False
