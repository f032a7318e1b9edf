"""A process that serves a bot: what surrounds the launcher, and errors before it runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pipecat_base.bot.packages import Packages, unused
from pipecat_base.bot.project import root, search_path
from pipecat_base.config import environment
from pipecat_base.config.settings import LAUNCHER_SECRETS, Settings, hide_secrets
from pipecat_base.errors import SettingsInvalid, StartupError
from pipecat_base.launcher import platform
from pipecat_base.logs.streams import write_line
from pipecat_base.server.signals import Signals

if TYPE_CHECKING:
    from pipecat_base.launcher.reload import Development
    from pipecat_base.launcher.template import TemplateProcess
    from pipecat_base.logs.jsonl.capture import OutputCapture
    from pipecat_base.logs.logger import Logs
    from pipecat_base.server.watchdog import Watchdog
    from pipecat_base.workers.fork_client import ForkServerProcess, TemplateConnection


class Process:
    """Serves one bot. From construction on, signals are handled and printed output goes to PCC_LOG_DIR."""

    def __init__(self, site: str | None) -> None:
        self._site = site
        self._capture: OutputCapture | None = None
        self._watchdog: Watchdog | None = None
        _fill_standard_streams()
        self._signals = Signals(self._print_signal)
        self._signals.install()
        variables = environment.read()
        folder, log_format = (variables.get(name, "").strip() for name in ("PCC_LOG_DIR", "PIPECAT_LOG_FORMAT"))
        as_json = log_format.lower() == "json"
        if folder or as_json:
            from pipecat_base.logs.jsonl.capture import OutputCapture

            self._capture = OutputCapture.open(folder or None, as_json=as_json)

    def serve(self, find_settings: Callable[[], Settings], development: Development | None = None) -> int:
        """Import the bot and serve it until a signal arrives; return the exit status."""
        try:
            status = self._serve(find_settings, development)
        except StartupError as error:
            self._print_error(error)
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
        is_dev = development is not None
        packages = Packages(self._site, sys.path)
        packages.check(unused=unused(settings.gateway, settings.files, is_dev=is_dev))
        with packages.explaining():
            # Imported here: what this command needs takes half a second.
            from pipecat_base import LAUNCHER
            from pipecat_base.logs.logger import Logs, logger
            from pipecat_base.server import server
            from pipecat_base.server.watchdog import Watchdog

        server.prepare()
        logs = Logs(settings.logs.level, self._capture, caller_data=settings.logs.caller_data)
        logs.configure()
        for line in settings.warnings:
            logger.warning(line)
        reloads = development is not None and development.reload
        fork_server: ForkServerProcess | None = None
        if settings.workers.isolation == "process" or reloads:
            fork_server = self._start_fork_server(settings, packages, logs, find_settings, is_dev=is_dev)
            if not reloads:  # a reload reads them again
                environment.scrub(LAUNCHER_SECRETS)
            environment.hide_from_other_processes()
        if development is not None:
            development.watch()
        listener = server.listen(settings.server.host, settings.server.port)
        bot_file = Path(os.path.abspath(settings.server.bot_file))
        project = root(bot_file)
        self._watchdog = watchdog = Watchdog(
            listener,
            launcher=LAUNCHER,
            stall_limit=settings.start.event_loop_stall_limit,
            project=str(project),
            holds=settings.gateway.is_enabled,
        )
        watchdog.start()
        if fork_server is None:
            from pipecat_base.bot.imported import import_bot

            imported = import_bot(settings, packages, logs, self._give_up, is_dev=is_dev)
            self._signals.install()  # again: the bot may have set handlers of its own
            warnings = imported.warnings
            from pipecat_base.launcher import backend

            make_backend = partial(backend.local_backend, settings, imported, logs)
        else:
            template = self._template(fork_server, settings, watchdog, development)
            # The launcher looks up what is installed, too, and that may be beside the bot.
            sys.path += [folder for folder in search_path(bot_file, project) if folder not in sys.path]
            warnings = tuple(template.imported.warnings)
            from pipecat_base.launcher import backend

            make_backend = partial(backend.pool_backend, settings, fork_server, template, logs)
        for line in warnings:
            logger.warning(line)

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
        fork_server: ForkServerProcess, settings: Settings, watchdog: Watchdog, development: Development | None
    ) -> TemplateConnection:
        """Wait for the template; with reload, until a bot that cannot be served is fixed. Raises StartupError."""
        variables: Mapping[str, str] | None = None
        while True:
            wait_for_import = fork_server.import_bot(variables)
            # Meanwhile, import what the launcher itself needs.
            import pipecat_base.launcher.launcher  # noqa: F401
            from pipecat_base.launcher import backend

            backend.import_pool()

            try:
                return wait_for_import()
            except StartupError as error:
                if development is None or not development.reload:
                    raise
                watchdog.serve_problem(development.startup_problem(error, settings))
                development.wait_for_fix(error)
                with contextlib.suppress(SettingsInvalid):  # reported when the bot itself is fixed
                    development.env_file.read()
                variables = environment.read()

    @staticmethod
    def _start_fork_server(
        settings: Settings,
        packages: Packages,
        logs: Logs,
        find_settings: Callable[[], Settings],
        *,
        is_dev: bool,
    ) -> ForkServerProcess:
        """Fork the fork server, before any thread is started and any socket opened."""
        from pipecat_base.workers.fork_client import ForkServerProcess

        def template() -> TemplateProcess:  # imported in the child: the fork server itself stays small
            from pipecat_base.launcher.template import TemplateProcess
            from pipecat_base.launcher.worker import work

            return TemplateProcess(settings, packages, logs, find_settings, work, is_dev=is_dev)

        return ForkServerProcess(lambda *forked: template().run(*forked), lambda: hide_secrets(settings))

    def _print_signal(self, message: str) -> None:
        """Print a line. Safe in a signal handler: no lock, no buffer."""
        if self._capture is None:
            write_line(2, message)
        else:
            self._capture.print(message)
            self._capture.append("WARNING", message)

    def _give_up(self, error: StartupError) -> NoReturn:
        """End the process although its main thread does not."""
        self._print_error(error)
        os._exit(error.exit_status)

    def _print_error(self, error: StartupError) -> None:
        if self._capture is None:
            print(error.report(), file=sys.stderr, flush=True)
        else:
            self._capture.print(error.report())
            self._capture.append("CRITICAL", error.refusal())
        platform.write_termination_message(error.refusal(), environment.read())


def _fill_standard_streams() -> None:
    """Open closed ones: the next file or socket would get the number, and with it printed output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
