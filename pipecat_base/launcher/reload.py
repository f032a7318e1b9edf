"""``pipecat-base dev``: the gateway on this machine, ``.env``, links to open, and a bot that is reloaded.

The bot runs in a process of its own. A change makes the next one beside it: calls that run finish in the old one.
"""

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
from pipecat_base.logs.logger import logger
from pipecat_base.server import server
from pipecat_base.server.startup_problem import StartupProblem, bot_error_of

HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
LOCALHOST = ("127.0.0.1", "::1", "localhost")
CONTAINER = ("/.dockerenv", "/run/.containerenv")
"""Files that Docker and Podman put into every container: an address found in there is of no use outside."""
KUBERNETES = "KUBERNETES_SERVICE_HOST"
"""A variable that every pod has."""
LOOK = 100
"""Milliseconds between looks at what has changed."""
IGNORED = (".venv", "venv", "node_modules", "__pycache__", ".git", "site-packages")


class Changes:
    """Watches a folder, and those below it, from now on: a change while the bot is being imported counts too."""

    def __init__(self, folder: Path) -> None:
        from watchfiles import watch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts what it sees
        self._folder = folder
        self._names: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._stop = threading.Event()
        looks = watch(
            folder, watch_filter=self._matters, stop_event=self._stop, rust_timeout=LOOK, yield_on_timeout=True
        )
        self._emit(next(looks))  # now it watches
        self._thread = threading.Thread(target=self._watch, args=(looks,), name="changes", daemon=True)
        self._thread.start()

    def wait(self) -> str:
        """The names of the files that change next, without a loop."""
        return self._names.get()

    async def next(self) -> str:
        """The same, on a loop: of all that have changed since the last time."""
        self._loop = asyncio.get_running_loop()
        while self._names.empty():
            self._changed.clear()
            await self._changed.wait()
        found = set(self._names.get().split(", "))
        while not self._names.empty():
            found |= set(self._names.get().split(", "))
        return ", ".join(sorted(found))

    def stop(self) -> None:
        """Watch no longer: a thread in there while the interpreter ends would abort it."""
        self._stop.set()
        self._thread.join(10 * LOOK / 1000)

    def _watch(self, looks: Iterator[set[tuple[Any, str]]]) -> None:
        for changes in looks:
            self._emit(changes)

    def _emit(self, changes: set[tuple[Any, str]]) -> None:
        if changes:
            self._names.put(", ".join(sorted({os.path.basename(path) for _, path in changes})))
            if self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._changed.set)

    def _matters(self, change: object, path: str) -> bool:
        name = os.path.basename(path)
        below = os.path.relpath(path, self._folder).split(os.sep)
        return not any(part in IGNORED for part in below) and (name.endswith(".py") or name == ".env")


class Development:
    """What a developer gets beside a served bot.

    Args:
        folder: The bot's.
        reload: Whether a change of a Python file in it, or of ``.env``, reloads the bot.
    """

    def __init__(self, folder: Path, *, reload: bool) -> None:
        self.reload = reload
        self._folder = folder
        self._changes: Changes | None = None
        self.env_file = EnvFile(folder)
        self._told: tuple[str, ...] = ()
        # A cached file counts as fresh when the source has the same size and was written in the same second.
        sys.dont_write_bytecode = reload or sys.dont_write_bytecode

    def tell_of_settings(self) -> None:
        """Say what in ``.env`` is wrong, and which of its variables the launcher reads once, when it starts."""
        for line in self.env_file.warnings:
            if line not in self._told:
                logger.warning(line)
        self._told = self.env_file.warnings
        for line in misspelt(environment.read(), NAMES):
            if line.partition(":")[0] in self.env_file.differing:
                logger.warning(line)
        own = self.env_file.differing & {row.variable for row in table()}
        if own:
            logger.warning(f"{', '.join(sorted(own))}: what .env says of the launcher counts from its next start")

    def greet(self, settings: Settings) -> None:
        """Print what to open."""
        print(banner(settings), flush=True)

    def watch(self) -> None:
        """Notice changes from now on, if any are to be noticed."""
        if self.reload and self._changes is None:
            self._changes = Changes(self._folder)

    async def changed(self) -> None:
        """Wait for the next change; for ever when none is to be noticed."""
        if self._changes is None:
            await asyncio.Event().wait()
        else:
            logger.info(f"Changed: {await self._changes.next()}")

    def problem(self, error: StartupError, settings: Settings) -> StartupProblem:
        """What callers are told until the bot is fixed: here what the terminal says, elsewhere that it says so."""
        from pipecat_base.gateway import pages

        reason = f"The bot cannot be served ({error.code}); its terminal says why."
        return StartupProblem(
            reason, bot_error_of(error) if settings.gateway.serves_this_machine_only else None, pages.broken()
        )

    def tell(self, error: StartupError) -> None:
        """Say what is wrong with the bot."""
        print(f"{error.report()}\nWaiting for a change ...", file=sys.stderr, flush=True)

    def wait_for_fix(self, error: StartupError) -> None:
        """Say what is wrong with the bot, and wait for the next change, without a loop."""
        was_watching = self._changes is not None
        self.watch()
        self.tell(error)
        assert self._changes is not None
        self._changes.wait()
        if not was_watching:  # processes are made before there is a thread
            self.close()

    def close(self) -> None:
        """Watch no longer."""
        if self._changes is not None:
            self._changes.stop()
        self._changes = None


def banner(settings: Settings) -> str:
    """What to open and what to call, with a QR code where a phone can open it too."""
    host = (
        "localhost" if settings.server.host in EVERYWHERE or settings.server.host in LOCALHOST else settings.server.host
    )
    local = server.http_address(host, settings.server.port)
    lines = ["", f"  Talk to your bot:  {local}"]
    reachable = not is_local(settings.server.host)
    contained = any(map(os.path.exists, CONTAINER)) or KUBERNETES in environment.read()
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
    """This machine's in the network that leads out, found without sending anything."""
    if settings.server.host not in EVERYWHERE:
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
