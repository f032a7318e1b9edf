"""A launcher in a process of its own, on a port of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest

from pipecat_base.config.settings import Settings

BOTS = Path(__file__).parents[1] / "bots"
ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("LAUNCHER_PYTHON", sys.executable)
"""The interpreter of the launcher, if it is not the tests' own."""
ISOLATION = os.environ.get("LAUNCHER_ISOLATION", "none")
"""PIPECAT_ISOLATION of launchers whose test does not say."""
CALLS_PER_PROCESS = os.environ.get("LAUNCHER_CALLS_PER_PROCESS", "1")
"""PIPECAT_CALLS_PER_PROCESS of launchers whose test does not say."""
OBSERVED = bool(os.environ.get("LAUNCHER_OBSERVED"))
"""Whether every launcher has metrics and reports, too, and what they show is searched for secrets."""
SECRETS = {f.metadata["name"] for f in dataclasses.fields(Settings) if f.metadata.get("secret")}
in_one_process = pytest.mark.skipif(
    ISOLATION != "none", reason="what is tested is true of one process for all calls: PIPECAT_ISOLATION=none"
)
PIPECAT = tuple(map(int, importlib.metadata.version("pipecat-ai").split(".")[:2]))
"""The version that is installed here: what an older one lacks is refused, and that is tested too."""
PATIENCE = 30.0
"""Seconds after which a test gives up waiting; nothing waits this long when all is well."""


def free_port() -> int:
    """Below those that the kernel gives to connections: or one of them could take it before it is listened on."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port


def environment(**variables: str | None) -> dict[str, str]:
    """A clean environment: nothing of the developer's own settings. None takes a variable away."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    modes = {"PIPECAT_ISOLATION": ISOLATION, "PIPECAT_CALLS_PER_PROCESS": CALLS_PER_PROCESS}
    wanted = {**kept, "PYTHONUNBUFFERED": "1", "PIPECAT_HOST": "127.0.0.1", **modes, **variables}
    return {name: value for name, value in wanted.items() if value is not None}


def run(*arguments: str, cwd: Path | str, **variables: str | None) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [PYTHON, "-m", "pipecat_base", *arguments],
        cwd=cwd,
        env=environment(**{"PORT": str(free_port()), **variables}),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def until(condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> Any:
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"not within {timeout:g} s: {what}")


def own_memory(pid: int) -> int:
    """Bytes that the process has written and shares with no other.

    Not psutil's USS: that counts a library's pages, too, as long as no other process on the machine has mapped them.
    """
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {name: int(size.split()[0]) for name, size in (line.split(":") for line in lines)}
    return (sizes["Private_Dirty"] + sizes["SwapPss"]) * 1024


class Launcher:
    """A running launcher. Leaving the context kills it if the test has not stopped it."""

    def __init__(
        self,
        bot: str | Path,
        *,
        wait: bool = True,
        python: str = PYTHON,
        prefix: Sequence[str] = (),
        command: Sequence[str] = (),
        port: int | str | None = None,
        **variables: Any,
    ) -> None:
        """``prefix`` is put before the command line, to run it elsewhere: ``ip netns exec NAME``.

        ``command`` is what follows the program's name; ``port`` is for one that takes another's place.
        """
        self.port = int(port or free_port())
        self.folder = BOTS / bot if isinstance(bot, str) else bot
        self.sockets: list[socket.socket] = []
        """Closed in the end."""
        self._output = tempfile.NamedTemporaryFile(prefix="launcher-", suffix=".log")  # noqa: SIM115
        self._reports = tempfile.TemporaryDirectory(prefix="reports-")
        self._metrics_port = free_port()
        if OBSERVED:
            found = {"PIPECAT_REPORTS_DIR": self._reports.name, "PIPECAT_METRICS_PORT": str(self._metrics_port)}
            variables = {**found, **variables}
        given = [str(value) for name, value in variables.items() if name in SECRETS and value]
        self._secrets = {part for value in given for part in value.split(",") if len(part) > 5}
        self.process = subprocess.Popen(
            [*prefix, python, "-m", "pipecat_base", *command],
            cwd=self.folder,
            env=environment(PORT=str(self.port), **variables),
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE, trust_env=False)
        if wait:
            try:
                self.wait_until_ready()
            except BaseException:
                self.kill()
                raise

    def __enter__(self) -> Launcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log())
        told = "" if error is not None else self.told_of_calls()
        self.kill()
        shown = {secret for secret in self._secrets if secret in told}
        assert not shown, "in a log, a report or a metric"

    def websocket_url(self, path: str = "/ws") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"

    def is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.http.get("/readyz", timeout=2).status_code == 200
        return False

    def wait_until_ready(self) -> None:
        def ready() -> bool:
            if self.process.poll() is not None:
                raise AssertionError(f"ended with {self.process.returncode}:\n{self.log()}")
            return self.is_ready()

        until(ready, "ready")

    def log(self) -> str:
        path = Path(self._output.name)
        return path.read_text(errors="replace") if path.exists() else ""

    def raw_log(self) -> str:
        """The log with its line ends as they are."""
        return Path(self._output.name).read_bytes().decode(errors="backslashreplace")

    def told_of_calls(self) -> str:
        """All that operators read: the log and, where they are made for every test, reports and metrics."""
        folder = Path(self._reports.name)
        reports = [path.read_text() for path in folder.iterdir()] if folder.is_dir() else []
        metrics = ""
        if OBSERVED and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                metrics = httpx.get(f"http://127.0.0.1:{self._metrics_port}/metrics", trust_env=False).text
        ours = [line for line in self.log().splitlines() if not line.startswith('{"said"')]  # bots say what they like
        return "\n".join([*ours, *reports, metrics])

    def wait_for_log(self, text: str, *, times: int = 1) -> None:
        try:
            until(lambda: self.log().count(text) >= times, f"log line {text!r}")
        except AssertionError:
            raise AssertionError(f"no {text!r} in:\n{self.log()}") from None

    def said(self) -> list[dict[str, Any]]:
        """What the bot printed as JSON lines."""
        # Another process may have written between what was said and the end of its line.
        decode = json.JSONDecoder().raw_decode
        return [decode(line)[0] for line in self.log().splitlines() if line.startswith('{"said"')]

    def post(self, body: Any = None, **headers: str) -> httpx.Response:
        """``POST /bot``; the headers' names have underscores for dashes."""
        return self.http.post("/bot", json=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def told(self, session_id: str) -> dict[str, Any]:
        """What the bot of this session said it was given, ``args``, and its ``type``."""

        def given() -> dict[str, Any] | None:
            return next((s for s in self.said() if s.get("args", {}).get("session_id") == session_id), None)

        said: dict[str, Any] = until(given, f"the bot's arguments of {session_id}")
        return said

    def arguments(self, session_id: str) -> dict[str, Any]:
        """The ``args`` of this session."""
        arguments: dict[str, Any] = self.told(session_id)["args"]
        return arguments

    def lines(self, text: str) -> list[str]:
        """The lines of the log with this text."""
        return [line for line in self.log().splitlines() if text in line]

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    def stop(self) -> int:
        self.signal()
        return self.wait()

    def kill(self) -> None:
        self.http.close()
        for sock in self.sockets:
            sock.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._output.close()
        self._reports.cleanup()


@contextlib.contextmanager
def measured() -> Iterator[Callable[[], float]]:
    """Seconds since the block began."""
    started = time.monotonic()
    yield lambda: time.monotonic() - started
