"""``pipecat-base dev``: the gateway on this machine, ``.env``, links to open, and a bot that is reloaded."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipecat_base.config import environment
from pipecat_base.config.checks import misspelt
from pipecat_base.config.env_file import EnvFile
from pipecat_base.config.hosts import is_local
from pipecat_base.config.reference import table
from pipecat_base.config.settings import NAMES, Settings
from pipecat_base.errors import StartupError
from pipecat_base.launcher.distributions import Distributions
from pipecat_base.logs.logger import logger
from pipecat_base.server import server
from pipecat_base.server.startup_problem import StartupProblem, bot_error_of

HOST = "127.0.0.1"
ALL_INTERFACES = ("0.0.0.0", "::")
LOCALHOST = ("127.0.0.1", "::1", "localhost")
CONTAINER_FILES = ("/.dockerenv", "/run/.containerenv")  # Docker and Podman create one of these in every container
KUBERNETES_VARIABLE = "KUBERNETES_SERVICE_HOST"
WATCH_INTERVAL_MS = 100
IGNORED = (".venv", "venv", "node_modules", "__pycache__", ".git", "site-packages")


class Changes:
    """Watches a folder from construction on: changes during an import count too.

    Attributes:
        include_packages: An installed package counts too, until the next change.
    """

    def __init__(self, folder: Path) -> None:
        from watchfiles import watch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it logs a count of changes
        self.include_packages = False
        self._folder = folder
        self._distributions = Distributions(sys.path)
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stop = threading.Event()
        batches = watch(
            folder,
            watch_filter=self._is_watched,
            stop_event=self._stop,
            rust_timeout=WATCH_INTERVAL_MS,
            yield_on_timeout=True,
        )
        self._put(next(batches))  # from here on changes are seen
        self._thread = threading.Thread(target=self._watch, args=(batches,), name="changes", daemon=True)
        self._thread.start()

    def wait(self) -> str:
        """Block; return the names of the files that change next."""
        found = self._names.get()
        self._begin_attempt()
        return found

    async def next(self) -> str:
        """Return the names of all files that changed since the last call."""
        self._loop = asyncio.get_running_loop()
        while self._names.empty():
            self._changed.clear()
            await self._changed.wait()
        found = set(self._names.get().split(", "))
        while not self._names.empty():
            found |= set(self._names.get().split(", "))
        self._begin_attempt()
        return ", ".join(sorted(found))

    def stop(self) -> None:
        """Stop the thread: one that still runs while the interpreter exits would abort it."""
        self._stop.set()
        self._thread.join(10 * WATCH_INTERVAL_MS / 1000)

    def _watch(self, batches: Iterator[set[tuple[Any, str]]]) -> None:
        for changes in batches:
            self._put(changes)
            if self.include_packages:
                self._put_names(self._distributions.take_new())

    def _begin_attempt(self) -> None:
        """The bot is imported next, with the packages that there are now."""
        self.include_packages = False
        self._distributions.forget_new()

    def _put(self, changes: set[tuple[Any, str]]) -> None:
        self._put_names({os.path.basename(path) for _, path in changes})

    def _put_names(self, names: set[str]) -> None:
        if names:
            self._names.put(", ".join(sorted(names)))
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._changed.set)

    def _is_watched(self, change: object, path: str) -> bool:
        name = os.path.basename(path)
        below = os.path.relpath(path, self._folder).split(os.sep)
        return not any(part in IGNORED for part in below) and (name.endswith(".py") or name == ".env")


class Development:
    """Development features of a served bot."""

    def __init__(self, folder: Path, env_file: EnvFile, *, reload: bool) -> None:
        self.reload = reload
        self._folder = folder
        self._changes: Changes | None = None
        self.env_file = env_file
        self._logged_warnings: tuple[str, ...] = ()
        # A cached file counts as fresh when the source has the same size and was written in the same second.
        sys.dont_write_bytecode = reload or sys.dont_write_bytecode

    def log_settings(self) -> None:
        """Log problems of ``.env``, and which of its variables need a restart."""
        for line in self.env_file.warnings:
            if line not in self._logged_warnings:
                logger.warning(line)
        self._logged_warnings = self.env_file.warnings
        for line in misspelt(environment.read(), NAMES):
            if line.partition(":")[0] in self.env_file.differing:
                logger.warning(line)
        own = self.env_file.differing & {row.variable for row in table()}
        if own:
            names = ", ".join(sorted(own))
            logger.warning(f"{names}: these are the launcher's own settings; restart to apply their values from .env")

    def print_banner(self, settings: Settings) -> None:
        print(banner(settings), flush=True)

    def watch(self) -> None:
        if self.reload and self._changes is None:
            self._changes = Changes(self._folder)

    async def changed(self) -> None:
        if self._changes is None:
            await asyncio.Event().wait()
        else:
            logger.info(f"Changed: {await self._changes.next()}")

    def startup_problem(self, error: StartupError, settings: Settings) -> StartupProblem:
        """Only callers on this machine see the error itself."""
        from pipecat_base.gateway import pages

        reason = f"The bot cannot be served ({error.code}); its terminal says why."
        return StartupProblem(
            reason, bot_error_of(error) if settings.gateway.serves_this_machine_only else None, pages.broken()
        )

    def print_error(self, error: StartupError) -> None:
        if self._changes is not None:
            self._changes.include_packages = True
        print(f"{error.report()}\nWaiting for a change ...", file=sys.stderr, flush=True)

    def wait_for_fix(self, error: StartupError) -> None:
        was_watching = self._changes is not None
        self.watch()
        self.print_error(error)
        assert self._changes is not None
        self._changes.wait()
        if not was_watching:  # the thread must not exist when processes are forked
            self.close()

    def close(self) -> None:
        if self._changes is not None:
            self._changes.stop()
        self._changes = None


def banner(settings: Settings) -> str:
    host = (
        "localhost"
        if settings.server.host in ALL_INTERFACES or settings.server.host in LOCALHOST
        else settings.server.host
    )
    local = server.http_address(host, settings.server.port)
    lines = ["", f"  Talk to your bot:  {local}"]
    reachable = not is_local(settings.server.host)
    contained = any(map(os.path.exists, CONTAINER_FILES)) or KUBERNETES_VARIABLE in environment.read()
    others = settings.gateway.public_url or (_address(settings) if reachable and not contained else None)
    if others is None and reachable and contained:
        lines.append(
            "  From elsewhere:    set PIPECAT_PUBLIC_URL: a container does not know the address that others reach"
        )
    if others is not None:
        lines.append(f"  From elsewhere:    {others}")
    from pipecat_base.gateway import pages

    if pages.client_folder() is not None:
        lines.append(f"  Prebuilt client:   {local}{pages.CLIENT}")
    lines.append(
        f"  Phone webhooks:    {settings.gateway.public_url or local}/telephony/twilio (telnyx, plivo, exotel)"
    )
    lines.append("")
    if others is not None:
        lines += [_code(others)]
        if not others.startswith("https://"):
            lines += ["  Browsers give the microphone to https pages only: use a tunnel, and PIPECAT_PUBLIC_URL.", ""]
    return "\n".join(lines)


def _address(settings: Settings) -> str | None:
    """Address of this machine in its outgoing network, found without sending a packet."""
    if settings.server.host not in ALL_INTERFACES:
        return server.http_address(settings.server.host, settings.server.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return server.http_address(probe.getsockname()[0], settings.server.port)


def _code(url: str) -> str:
    import io

    import segno

    text = io.StringIO()
    segno.make(url, error="l").terminal(text, compact=True, border=2)
    return text.getvalue()
