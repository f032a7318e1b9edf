"""One process that serves a bot: what surrounds its launcher, and what is said when it has nothing to serve."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipecat_base import environment, orchestrator
from pipecat_base.errors import SettingsInvalid, StartupError
from pipecat_base.packages import BOTS_MODULE, DEVELOPMENT, SESSION_API, UPLOADS, Packages
from pipecat_base.settings import Settings
from pipecat_base.signals import Signals, write_line

if TYPE_CHECKING:
    from pipecat_base.development import Development
    from pipecat_base.lane import Lane
    from pipecat_base.loader import Bot
    from pipecat_base.logs import Logs
    from pipecat_base.watchdog import Watchdog

WITHOUT_PIPECAT = (
    "pipecat-ai is not installed: sessions get objects with the fields of its arguments, and none of its transports can"
    " be used"
)
CLOUD_IN_SOURCES = rb"\bpipecatcloud\b"
"""Not the module with the web app, pipecatcloud_system."""
PIPECAT_IN_SOURCES = rb"\bpipecat(cloud)?\b"


class Process:
    """Serves one bot. From its making on, signals are answered and PCC_LOG_DIR has what is printed.

    Args:
        site: The folder of the launcher's packages, where they are not in the bot's environment.
    """

    def __init__(self, site: str | None) -> None:
        self._site = site
        self._lane: Lane | None = None
        self._watchdog: Watchdog | None = None
        _fill_standard_streams()
        self._signals = Signals(self._tell_of_signal)
        self._signals.install()
        folder = environment.read().get("PCC_LOG_DIR", "").strip()
        if folder:
            from pipecat_base.lane import Lane

            self._lane = Lane.open(folder)

    def serve(self, find_settings: Callable[[], Settings], development: Development | None = None) -> int:
        """Import the bot and serve it until a signal comes; the exit status.

        Args:
            find_settings: What the environment and the command line ask for. Raises SettingsInvalid.
            development: For whoever works on the bot; None in a pod.
        """
        try:
            status = self._serve(self._settings(find_settings, development), development)
        except StartupError as error:
            self._tell_of_error(error)
            status = error.exit_status
        if development is not None:
            development.close()
        if self._watchdog is not None:
            from pipecat_base import server

            server.leave(status, self._watchdog)
        return status

    def _settings(self, find_settings: Callable[[], Settings], development: Development | None) -> Settings:
        try:
            return find_settings()
        except SettingsInvalid as error:
            if development is None or not development.reload:
                raise
            development.wait_for_mend(error)
            self._start_again(development)

    def _serve(self, settings: Settings, development: Development | None) -> int:
        environment.allow_long_websocket_requests()
        is_dev = development is not None
        packages = Packages(self._site, sys.path)
        packages.check(unused=unused(settings, is_dev=is_dev))
        with packages.explaining():
            # Imported here, as in every command: what this one needs costs half a second.
            from pipecat_base import server
            from pipecat_base.arguments import ArgumentFactory
            from pipecat_base.logs import Logs, logger
            from pipecat_base.refusals import LAUNCHER
            from pipecat_base.watchdog import Watchdog

        logs = Logs(settings.log_level, self._lane)
        logs.configure()
        for line in settings.ignored:
            logger.warning(line)
        if settings.observers:
            environment.append_setup_file(os.path.join(os.path.dirname(__file__), "observers.py"))
        listen = server.listen if development is None else development.listen
        listener = listen(settings.host, settings.port)
        self._watchdog = watchdog = Watchdog(
            listener,
            launcher=LAUNCHER,
            stall_limit=settings.event_loop_stall_limit,
            project=str(Path(settings.bot).absolute().parent),
            holds=settings.gateway,
        )
        watchdog.start()
        try:
            imported = import_bot(settings, packages, logs, is_dev=is_dev)
            self._signals.install()  # again: the bot may have set handlers of its own
            for line in imported.warnings:
                logger.warning(line)

            from pipecat_base.launcher import RELOAD, Launcher

            async def run() -> int:
                launcher = Launcher(
                    settings,
                    imported.bot,
                    ArgumentFactory(
                        wants_cloud=imported.wants_cloud,
                        guard=logs.unchanged,
                        webrtc_problem=imported.webrtc_problem,
                    ),
                    logs=logs,
                    listener=listener,
                    watchdog=watchdog,
                    signals=self._signals,
                    development=development,
                )
                return await launcher.run()

            status = server.run(run(), event_loop=settings.event_loop)
        except StartupError as error:
            if development is None or not development.reload:
                raise
            watchdog.stand_in(*development.excuse(error))
            development.wait_for_mend(error)
            self._start_again(development)
        if status == RELOAD and development is not None:
            self._start_again(development)
        return status

    def _start_again(self, development: Development) -> NoReturn:
        if self._lane is not None:
            self._lane.close()
        development.start_again()

    def _tell_of_signal(self, message: str) -> None:
        """One line. Safe in a signal handler: nothing is locked or buffered."""
        if self._lane is None:
            write_line(2, message)
        else:
            self._lane.print(message)
            self._lane.say("WARNING", message)

    def _tell_of_error(self, error: StartupError) -> None:
        """Standard error is for people, the lane and the termination message for the platform."""
        if self._lane is None:
            print(error.report(), file=sys.stderr, flush=True)
        else:
            self._lane.print(error.report())
            self._lane.say("CRITICAL", error.refusal())
        orchestrator.write_termination_message(error.refusal(), environment.read())


def _fill_standard_streams() -> None:
    """Where one is closed, the next file or socket that is opened would take its place, and what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


@dataclass(frozen=True)
class Imported:
    """A bot that can be served with what is installed.

    Attributes:
        wants_cloud: Whether pipecatcloud is imported or its sources mention it.
        warnings: What an operator should know of what is installed.
        webrtc_problem: Why its sessions cannot come over WebRTC although it is installed, or None.
    """

    bot: Bot
    wants_cloud: bool
    warnings: tuple[str, ...]
    webrtc_problem: str | None


def import_bot(settings: Settings, packages: Packages, logs: Logs, *, is_dev: bool = False) -> Imported:
    """Import and validate the bot, and build what its sessions will get.

    A bot whose sources do not mention pipecat waits for no import of it: a quarter of a second.

    Raises:
        StartupError: it cannot be served.
    """
    from pipecat_base import compatibility, loader
    from pipecat_base.argument_types import CLOUD

    has_pipecat = compatibility.require_release()
    try:
        with logs.guard(), packages.explaining():
            bot = loader.load(settings.bot)
    except StartupError as error:
        compatibility.require_import(error)
        raise
    packages.check(unused=unused(settings, bot, is_dev=is_dev))
    wants_cloud = loader.mentions(bot.project, CLOUD_IN_SOURCES) or CLOUD in sys.modules
    verdict = compatibility.Verdict(() if has_pipecat else (WITHOUT_PIPECAT,))
    if has_pipecat and ("pipecat" in sys.modules or loader.mentions(bot.project, PIPECAT_IN_SOURCES)):
        try:
            with logs.unchanged():
                verdict = compatibility.require_session_types(cloud=wants_cloud)
        except StartupError:
            raise
        except Exception as error:  # a fault of the check's own
            verdict = compatibility.Verdict((f"The pipecat-ai check did not run ({type(error).__name__}: {error})",))
    return Imported(bot, wants_cloud, verdict.warnings, verdict.webrtc_problem)


def unused(settings: Settings, bot: Bot | None = None, *, is_dev: bool = False) -> set[str]:
    """The packages that are not needed for this start; a bot that is not imported yet is taken to need none."""
    found = set() if is_dev else set(DEVELOPMENT)
    if not settings.gateway and (bot is None or BOTS_MODULE not in sys.modules):
        found.add(SESSION_API)
    if settings.uploads_folder is None and (bot is None or bot.create_file_storage is None):
        found.add(UPLOADS)
    return found
