"""``pipecat-base dev``: the gateway on this machine, ``.env``, links to open, and a new start when the bot changes."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from pipecat_base import server
from pipecat_base.environment import GREETED, LISTENER
from pipecat_base.errors import SettingsInvalid, StartupError
from pipecat_base.logs import logger
from pipecat_base.settings import Settings, is_local

HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
LOCALHOST = ("127.0.0.1", "::1", "localhost")
LOOK = 100
"""Milliseconds between looks at what has changed."""
EXCUSE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <noscript><meta http-equiv="refresh" content="5"></noscript>
    <meta name="viewport" content="width=device-width">
    <meta name="color-scheme" content="light dark">
    <title>pipecat-base</title>
  </head>
  <body style="font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 4rem auto; padding: 0 1rem">
    <main>
      <h1>pipecat-base</h1>
      <p>{reason}</p>
      <p>This page goes on once it is mended.</p>
    </main>
    <script>
      setInterval(async () => {
        const ready = await fetch("readyz").catch(() => null);
        if (ready?.ok) location.reload();
      }, 1000);
    </script>
  </body>
</html>
"""
IGNORED = (".venv", "venv", "node_modules", "__pycache__", ".git", "site-packages")


def variables(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What ``.env`` adds to the environment: never over a variable that is set, be it empty.

    Raises:
        SettingsInvalid: it is no text.
    """
    from dotenv import dotenv_values

    try:
        found = dotenv_values(folder / ".env")
    except UnicodeDecodeError:
        raise SettingsInvalid([f"{folder / '.env'}: not UTF-8"]) from None
    return {name: value for name, value in found.items() if value is not None and name not in given}


class Changes:
    """Watches a folder, and those below it, from now on: a change while the bot is being imported counts too."""

    def __init__(self, folder: Path) -> None:
        from watchfiles import watch

        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts what it sees
        self.first: concurrent.futures.Future[str] = concurrent.futures.Future()
        """The names of the files that changed first."""
        self._folder = folder
        self._stop = threading.Event()
        looks = watch(
            folder, watch_filter=self._matters, stop_event=self._stop, rust_timeout=LOOK, yield_on_timeout=True
        )
        self._note(next(looks))  # now it watches
        self._thread = threading.Thread(target=self._watch, args=(looks,), name="changes", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer: a thread in there while the interpreter ends would abort it."""
        self._stop.set()
        self._thread.join(10 * LOOK / 1000)

    def _watch(self, looks: Iterator[set[tuple[Any, str]]]) -> None:
        for changes in looks:
            self._note(changes)
            if self.first.done():
                return

    def _note(self, changes: set[tuple[Any, str]]) -> None:
        if changes:
            self.first.set_result(", ".join(sorted({os.path.basename(path) for _, path in changes})))

    def _matters(self, change: object, path: str) -> bool:
        name = os.path.basename(path)
        below = os.path.relpath(path, self._folder).split(os.sep)
        return not any(part in IGNORED for part in below) and (name.endswith(".py") or name == ".env")


class Development:
    """What a developer gets beside a served bot.

    Args:
        folder: The bot's.
        reload: Whether a change of a Python file in it, or of ``.env``, starts the bot anew.
        greeted: Whether an earlier start has said what to open.
        descriptor: The listening socket that an earlier start has left open, or None.
        started_with: The environment before ``.env`` was read into it.
    """

    def __init__(
        self, folder: Path, *, reload: bool, greeted: bool, descriptor: int | None, started_with: Mapping[str, str]
    ) -> None:
        self._changes = Changes(folder) if reload else None
        # A cached file counts as fresh when the source has the same size and was written in the same second.
        sys.dont_write_bytecode = reload or sys.dont_write_bytecode
        self._greeted = greeted
        self._inherited = None if descriptor is None else socket.socket(fileno=descriptor)
        self._listener: socket.socket | None = None
        self._cwd = os.getcwd()
        self._started_with = started_with

    @property
    def reload(self) -> bool:
        """Whether changes are noticed."""
        return self._changes is not None

    def listen(self, host: str, port: int) -> socket.socket:
        """The socket of the start before, if it is at this address still, or a new one.

        Raises:
            PortUnavailable: with the reason.
        """
        inherited, self._inherited = self._inherited, None
        if inherited is not None and inherited.getsockname()[:2] == (host, port):
            inherited.set_inheritable(False)
            inherited.setblocking(False)
            listener = inherited
        else:
            if inherited is not None:
                inherited.close()
            listener = server.listen(host, port)
        self._listener = listener.dup()  # the server closes its own
        return listener

    def greet(self, settings: Settings) -> None:
        """Print what to open, once."""
        if not self._greeted:
            print(banner(settings), flush=True)
        self._greeted = True

    async def changed(self) -> None:
        """Wait for the next change; for ever when none is to be noticed."""
        if self._changes is None:
            await asyncio.Event().wait()
        else:
            names: str = await asyncio.wrap_future(self._changes.first)
            logger.info(f"Changed: {names}")

    def excuse(self, error: StartupError) -> tuple[str, str]:
        """What callers are told until the bot is mended, and the page for who opens ``/``: it tries again by itself."""
        reason = f"The bot can not be served ({error.code}); its terminal says why."
        return reason, EXCUSE.replace("{reason}", reason)

    def wait_for_mend(self, error: StartupError) -> None:
        """Say what is wrong with the bot, and wait for the next change."""
        print(f"{error.report()}\nWaiting for a change ...", file=sys.stderr, flush=True)
        if self._changes is not None:
            self._changes.first.result()

    def close(self) -> None:
        """The program ends."""
        if self._changes is not None:
            self._changes.stop()

    def start_again(self) -> NoReturn:
        """Take this process's place: the bot's modules are imported anew, and nothing of the old ones is left.

        Functions that the bot has registered with atexit are not called; its ``teardown()`` was.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        os.chdir(self._cwd)
        own = (f"{LISTENER}=", GREETED)
        command = [sys.executable, *(word for word in sys.orig_argv[1:] if not word.startswith(own))]
        if self._greeted:
            command.append(GREETED)
        listener = self._listener or self._inherited
        if listener is not None:
            listener.set_inheritable(True)
            command.append(f"{LISTENER}={listener.fileno()}")
        os.execve(sys.executable, command, dict(self._started_with))  # noqa: S606


def banner(settings: Settings) -> str:
    """What to open and what to call, with a QR code where a phone can open it too."""
    host = "localhost" if settings.host in EVERYWHERE or settings.host in LOCALHOST else settings.host
    local = server.http_address(host, settings.port)
    lines = ["", f"  Talk to your bot:  {local}"]
    others = settings.public_url or (None if is_local(settings.host) else _address(settings))
    if others is not None:
        lines.append(f"  From elsewhere:    {others}")
    from pipecat_base.gateway import pages

    if pages.client_folder() is not None:
        lines.append(f"  Prebuilt client:   {local}{pages.CLIENT}")
    lines.append(f"  Phone webhooks:    {settings.public_url or local}/telephony/twilio (telnyx, plivo, exotel)")
    lines.append("")
    if others is not None:
        lines += [_code(others)]
        if not others.startswith("https://"):
            lines += ["  Browsers give the microphone to https pages only: use a tunnel, and PIPECAT_PUBLIC_URL.", ""]
    return "\n".join(lines)


def _address(settings: Settings) -> str | None:
    """This machine's in the network that leads out, found without sending anything."""
    if settings.host not in EVERYWHERE:
        return server.http_address(settings.host, settings.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        return server.http_address(probe.getsockname()[0], settings.port)


def _code(url: str) -> str:
    import io

    import segno

    text = io.StringIO()
    segno.make(url, error="l").terminal(text, compact=True, border=2)
    return text.getvalue()
