"""One process that serves a bot: what surrounds its launcher, and what is said when it has nothing to serve."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipecat_base.bot.packages import Packages, unused
from pipecat_base.config import environment
from pipecat_base.config.settings import LAUNCHER_SECRETS, Settings, hide_secrets
from pipecat_base.errors import SettingsInvalid, StartupError
from pipecat_base.launcher import platform
from pipecat_base.logs.streams import write_line
from pipecat_base.server.limits import raise_descriptor_limit
from pipecat_base.server.signals import Signals

if TYPE_CHECKING:
    import socket

    from pipecat_base.launcher.backend import Backend
    from pipecat_base.launcher.reload import Development
    from pipecat_base.logs.jsonl.capture import OutputCapture
    from pipecat_base.logs.logger import Logs
    from pipecat_base.server.lifecycle import Lifecycle
    from pipecat_base.server.watchdog import Watchdog
    from pipecat_base.telemetry.bus import EventBus
    from pipecat_base.workers.fork_client import ForkClient, TemplateClient
    from pipecat_base.workers.ipc.messages import Make


class Process:
    """Serves one bot. From its making on, signals are answered and PCC_LOG_DIR has what is printed.

    Args:
        site: The folder of the launcher's packages, where they are not in the bot's environment.
    """

    def __init__(self, site: str | None) -> None:
        self._site = site
        self._capture: OutputCapture | None = None
        self._watchdog: Watchdog | None = None
        _fill_standard_streams()
        raise_descriptor_limit()
        self._signals = Signals(self._tell_of_signal)
        self._signals.install()
        variables = environment.read()
        folder, log_format = (variables.get(name, "").strip() for name in ("PCC_LOG_DIR", "PIPECAT_LOG_FORMAT"))
        as_json = log_format.lower() == "json"
        if folder or as_json:
            from pipecat_base.logs.jsonl.capture import OutputCapture

            self._capture = OutputCapture.open(folder or None, as_json=as_json)

    def serve(self, find_settings: Callable[[], Settings], development: Development | None = None) -> int:
        """Import the bot and serve it until a signal comes; the exit status.

        Args:
            find_settings: What the environment and the command line ask for. Raises SettingsInvalid.
            development: For whoever works on the bot; None in a pod.
        """
        try:
            status = self._serve(find_settings, development)
        except StartupError as error:
            self._tell_of_error(error)
            status = error.exit_status
        if development is not None:
            development.close()
        if self._watchdog is not None:
            from pipecat_base.server import server

            server.exit_process(status, self._watchdog)
        return status

    def _settings(self, find_settings: Callable[[], Settings], development: Development | None) -> Settings:
        try:
            return find_settings()
        except SettingsInvalid as error:
            if development is None or not development.reload:
                raise
            development.wait_for_fix(error)
            return self._settings(find_settings, development)

    def _serve(self, find_settings: Callable[[], Settings], development: Development | None) -> int:
        settings = self._settings(find_settings, development)
        environment.allow_long_websocket_requests()
        is_dev = development is not None
        packages = Packages(self._site, sys.path)
        packages.check(unused=unused(settings.gateway, settings.files, is_dev=is_dev))
        with packages.explaining():
            # Imported here, as in every command: what this one needs costs half a second.
            from pipecat_base import LAUNCHER
            from pipecat_base.logs.logger import Logs, logger
            from pipecat_base.server import server
            from pipecat_base.server.watchdog import Watchdog

        logs = Logs(settings.logs.level, self._capture, caller_data=settings.logs.caller_data)
        logs.configure()
        for line in settings.warnings:
            logger.warning(line)
        reloads = development is not None and development.reload
        fork_client: ForkClient | None = None
        if settings.workers.isolation == "process" or reloads:
            fork_client = self._fork_client(settings, packages, logs, find_settings, is_dev=is_dev)
            if not reloads:  # that reads it again
                environment.scrub(LAUNCHER_SECRETS)
            environment.hide_from_other_processes()
        if development is not None:
            development.watch()
        listener = server.listen(settings.server.host, settings.server.port)
        self._watchdog = watchdog = Watchdog(
            listener,
            launcher=LAUNCHER,
            stall_limit=settings.start.event_loop_stall_limit,
            project=str(Path(settings.server.bot_file).absolute().parent),
            holds=settings.gateway.is_enabled,
        )
        watchdog.start()
        if fork_client is None:
            from pipecat_base.bot.imported import import_bot

            imported = import_bot(settings, packages, logs, is_dev=is_dev)
            self._signals.install()  # again: the bot may have set handlers of its own
            warnings = imported.warnings

            def make_backend(lifecycle: Lifecycle, event_bus: EventBus) -> Backend:
                return backend.local_backend(settings, imported, lifecycle, logs, event_bus)
        else:
            maker = fork_client
            template = self._template(maker, settings, watchdog, development)
            # Whether something is installed is asked here too, and it may be beside the bot.
            sys.path.append(str(Path(settings.server.bot_file).absolute().parent))
            warnings = tuple(template.imported.warnings)

            def make_backend(lifecycle: Lifecycle, event_bus: EventBus) -> Backend:
                return backend.pool_backend(settings, maker, template, lifecycle, logs, event_bus)

        for line in warnings:
            logger.warning(line)

        from pipecat_base.launcher import backend
        from pipecat_base.launcher.launcher import Launcher

        async def run() -> int:
            launcher = Launcher(
                settings,
                make_backend,
                listener=listener,
                watchdog=watchdog,
                signals=self._signals,
                development=development,
            )
            return await launcher.run()

        return server.run(run(), event_loop=settings.server.event_loop)

    @staticmethod
    def _template(
        fork_client: ForkClient, settings: Settings, watchdog: Watchdog, development: Development | None
    ) -> TemplateClient:
        """The process that has imported the bot; where a developer may fix one that cannot be, once that is done.

        Raises:
            StartupError: it cannot be served.
        """
        variables: Mapping[str, str] | None = None
        while True:
            wait_for_import = fork_client.import_bot(variables)
            # Beside it: what the launcher itself needs.

            try:
                return wait_for_import()
            except StartupError as error:
                if development is None or not development.reload:
                    raise
                watchdog.serve_problem(development.problem(error, settings))
                development.wait_for_fix(error)
                with contextlib.suppress(SettingsInvalid):  # it is told of when it is all that is wrong
                    development.env_file.read()
                variables = environment.read()

    @staticmethod
    def _fork_client(
        settings: Settings,
        packages: Packages,
        logs: Logs,
        find_settings: Callable[[], Settings],
        *,
        is_dev: bool,
    ) -> ForkClient:
        """Before any thread is started, and any socket opened."""
        from pipecat_base.workers.fork_client import ForkClient

        def grow(sock: socket.socket, request: Make) -> NoReturn:
            from pipecat_base.launcher.template import TemplateProcess
            from pipecat_base.launcher.worker import work

            TemplateProcess(settings, packages, logs, find_settings, work, is_dev=is_dev).grow(sock, request)

        return ForkClient(grow, lambda: hide_secrets(settings))

    def _tell_of_signal(self, message: str) -> None:
        """One line. Safe in a signal handler: nothing is locked or buffered."""
        if self._capture is None:
            write_line(2, message)
        else:
            self._capture.print(message)
            self._capture.append("WARNING", message)

    def _tell_of_error(self, error: StartupError) -> None:
        """Standard error is for people, the lane and the termination message for the platform."""
        if self._capture is None:
            print(error.report(), file=sys.stderr, flush=True)
        else:
            self._capture.print(error.report())
            self._capture.append("CRITICAL", error.refusal())
        platform.write_termination_message(error.refusal(), environment.read())


def _fill_standard_streams() -> None:
    """Where one is closed, the next file or socket that is opened would take its place, and what is printed."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
