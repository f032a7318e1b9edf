"""A process that imports the bot: a template process, which forks workers, or a standalone worker."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from starlette.routing import BaseRoute, Match, Mount, WebSocketRoute

from pipecat_base.bot import installed
from pipecat_base.bot.assembly import import_for_sessions
from pipecat_base.bot.imported import Imported, import_bot
from pipecat_base.bot.packages import Packages
from pipecat_base.bot.random_generators import reseed
from pipecat_base.bot.web_app import bots_app, bots_routes
from pipecat_base.config import environment
from pipecat_base.config.settings import LAUNCHER_SECRETS, Settings, hide_secrets
from pipecat_base.errors import StartupError
from pipecat_base.logs.logger import Logs, logger
from pipecat_base.server.paths import LAUNCHER_PATHS
from pipecat_base.sessions.outcome import MAX_LINE
from pipecat_base.workers.exit_handlers import ExitHandlers
from pipecat_base.workers.fork_hazards import fork_hazards, open_descriptors
from pipecat_base.workers.fork_server import ForkServer, exit_process, forget_exit_handlers, leave_signals_to_launcher
from pipecat_base.workers.ipc import messages
from pipecat_base.workers.ipc.channel import Channel
from pipecat_base.workers.ipc.messages import Fork, Message, Progress, Stage, StartupFailed, WarmUp

OOM_SCORE_INCREMENT = 300  # added for workers: where memory runs out, the kernel kills a call, not the launcher
MAX_HAZARDS = 10
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class TemplateProcess:
    """Imports the bot, in a child of the fork server."""

    def __init__(
        self,
        settings: Settings,
        packages: Packages,
        logs: Logs,
        find_settings: Callable[[], Settings],
        work: Callable[[Channel, Settings, Imported, Logs], None],
        *,
        is_dev: bool,
    ) -> None:
        self._settings = settings
        self._find_settings = find_settings
        self._packages = packages
        self._logs = logs
        self._work = work
        self._is_dev = is_dev

    def run(self, sock: socket.socket, request: Fork) -> NoReturn:
        forget_exit_handlers()
        channel = Channel(sock)
        status = 1
        try:
            if request.variables is not None:
                environment.replace(request.variables)
                self._settings = self._find_settings()
                environment.remove(LAUNCHER_SECRETS)
            hide_secrets(self._settings)
            self._import_and_run(channel, standalone=request.standalone)
            status = 0
        except StartupError as error:
            _report(channel, error)
        except BaseException as error:
            logger.opt(exception=True).error(f"A process of the bot failed: {type(error).__name__}")
        finally:
            exit_process(status)

    def _import_and_run(self, channel: Channel, *, standalone: bool) -> None:
        for stream in (sys.stdout, sys.stderr):
            # Several processes write lines there: each line in one piece, also with PYTHONUNBUFFERED.
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(line_buffering=True, write_through=False)
        # A thread for each core in each worker would be slower than one, and a fork would lose them.
        environment.add_unless_set({"OPENBLAS_NUM_THREADS": "1"})

        def give_up(error: StartupError) -> NoReturn:
            _report(channel, error)
            os._exit(1)

        before = open_descriptors()
        exit_handlers = ExitHandlers()
        imported = import_bot(self._settings, self._packages, self._logs, give_up, is_dev=self._is_dev)
        leave_signals_to_launcher()
        channel.send(_describe(imported, fork_hazards(before)))
        if standalone:
            self._be_worker(channel, imported)
            return
        channel.flush(1.0)
        for handler in exit_handlers.kept_back(imported.bot.project):
            logger.info(f"Runs once at the end, not after each call: the exit handler {handler}")

        def on_other_message(message: Message) -> None:
            if isinstance(message, WarmUp):
                has_webrtc = False
                with contextlib.suppress(Exception):  # a worker that needs it reports the error
                    has_webrtc = import_for_sessions(imported, self._logs, webrtc=message.webrtc)
                gc.collect()  # only what was imported since the last freeze
                gc.freeze()
                channel.send(Progress(Stage.WARM, webrtc=has_webrtc))

        def run_worker(sock: socket.socket, request: Fork) -> NoReturn:
            forget_exit_handlers()
            exit_handlers.inherit()
            with contextlib.suppress(BaseException):
                reseed(imported.bot.project)
                self._be_worker(Channel(sock), imported)
            exit_process(1)

        # Freeze all objects, garbage included: a collection in a worker then writes to none of their pages, and they
        # stay shared. Collecting first would delay the start.
        gc.freeze()
        ForkServer(channel, run_worker, on_other_message).run()

    def _be_worker(self, channel: Channel, imported: Imported) -> None:
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "r+") as file:
            score = min(1000, int(file.read()) + OOM_SCORE_INCREMENT)
            file.seek(0)
            file.write(str(score))
        try:
            self._work(channel, self._settings, imported, self._logs)
        except BaseException as error:
            logger.opt(exception=True).error(f"A process of the bot failed: {type(error).__name__}")
            exit_process(1)
        exit_process(0)


def _report(channel: Channel, error: StartupError) -> None:
    channel.send(StartupFailed.of(error))
    channel.flush(1.0)


def _describe(imported: Imported, hazards: list[str]) -> messages.BotImported:
    bot = imported.bot
    problem = imported.webrtc_problem if installed.has(*installed.WEBRTC) else installed.NO_WEBRTC
    return messages.BotImported(
        name=bot.name,
        file=bot.file.name,
        warnings=list(imported.warnings),
        webrtc_problem=problem,
        has_file_storage=bot.create_file_storage is not None,
        has_readyz=bot.readyz is not None,
        has_app=bots_app() is not None,
        routes=_listed(bots_routes()),
        fork_hazards=[hazard[:MAX_LINE] for hazard in hazards[:MAX_HAZARDS]],
    )


def _accepts(route: BaseRoute, path: str, method: str) -> bool:
    scope = {"type": "http", "method": method, "path": path, "root_path": "", "headers": [], "path_params": {}}
    return route.matches(scope)[0] is Match.FULL


def _listed(routes: Sequence[BaseRoute]) -> list[tuple[str, list[str] | None, str]]:
    """Describe routes to the launcher: it must know which of its paths the bot has, and with which methods."""
    found: list[tuple[str, list[str] | None, str]] = []
    for route in routes:
        path: str = getattr(route, "path", "")
        name: str = getattr(route, "name", None) or ""
        methods: Any = getattr(route, "methods", None)
        kind = type(getattr(route, "original_route", route))
        if issubclass(kind, Mount):
            found.append((path, ["*"], name))
        elif issubclass(kind, WebSocketRoute) or kind.__name__ == "APIWebSocketRoute":
            found.append((path, None, name))
        elif methods:
            found.append((path, sorted(methods), name))
        elif not path:  # a router that FastAPI includes whole: try each path
            found += [
                (own, [method], name) for own in LAUNCHER_PATHS for method in METHODS if _accepts(route, own, method)
            ]
    return found
