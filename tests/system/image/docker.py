"""Containers of the image under test, run by the docker command line."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from pipecat_base.cli.call import audio
from tests.support.launchers import ROOT, run, until
from tests.support.tones import tone

DOCKER = os.environ.get("DOCKER", "docker")
SLIM = "pipecat-base:slim"
FULL = "pipecat-base:full"
VARIANTS = [SLIM, FULL, f"{SLIM}-nonroot", f"{FULL}-nonroot"]
CASES = Path(__file__).parent
TOOLS = Path(sys.executable).parent


def docker(*arguments: str, check: bool = True, timeout: float = 600) -> str:
    """Standard output; with ``check`` a failure shows what was printed."""
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    result = subprocess.run(
        [DOCKER, *arguments], capture_output=True, text=True, check=False, timeout=timeout, env=environment
    )
    if check and result.returncode:
        raise AssertionError(f"docker {' '.join(arguments)}: {result.returncode}\n{result.stdout}{result.stderr}")
    return result.stdout.strip()


class Container:
    """Started in the background, with its port published; removed in the end."""

    def __init__(self, image: str, *options: str, command: tuple[str, ...] = ()) -> None:
        self.id = docker("run", "-d", "-p", "127.0.0.1::8080", *options, image, *command)
        self.http = httpx.Client(trust_env=False, timeout=30)

    def __enter__(self) -> Container:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(self.log(), file=sys.stderr)
        self.http.close()
        docker("rm", "-f", self.id)

    @property
    def address(self) -> str:
        """``host:port``, from outside."""
        return docker("port", self.id, "8080").splitlines()[0]

    def log(self) -> str:
        result = subprocess.run([DOCKER, "logs", self.id], capture_output=True, text=True, check=False)
        return result.stdout + result.stderr

    def wait_for_log(self, text: str) -> None:
        until(lambda: text in self.log() or not self.running, f"{text!r} in the log")
        assert text in self.log(), self.log()

    @property
    def running(self) -> bool:
        return docker("inspect", self.id, "--format", "{{.State.Running}}") == "true"

    def wait_until_ready(self) -> Container:
        def ready() -> bool:
            assert self.running, self.log()
            with contextlib.suppress(httpx.TransportError):
                return self.http.get(f"http://{self.address}/readyz").status_code == 200
            return False

        until(ready, "ready")
        return self

    def post(self, path: str, **arguments: Any) -> httpx.Response:
        return self.http.post(f"http://{self.address}{path}", **arguments)

    def exit_status(self, timeout: float = 30) -> int:
        until(lambda: not self.running, "the container's end", timeout)
        return int(docker("inspect", self.id, "--format", "{{.State.ExitCode}}"))

    def health(self) -> str:
        return docker("inspect", self.id, "--format", "{{.State.Health.Status}}")

    def run(self, *command: str) -> str:
        return docker("exec", self.id, *command)

    def stop(self, seconds: int = 10) -> float:
        """Seconds that ``docker stop`` took."""
        began = time.monotonic()
        docker("stop", "-t", str(seconds), self.id)
        return time.monotonic() - began


def copied(case: str, folder: Path) -> Path:
    """A user's project, as it is before its image is built: with its lock, and the echo bot where it has none."""
    project = folder / case
    shutil.copytree(CASES / case, project)
    if not (project / "bot.py").exists():
        shutil.copy(ROOT / "examples" / "echo" / "bot.py", project)
    if (project / "pyproject.toml").exists():
        # Not kept with the case: a lock of uv holds the addresses that it was resolved at.
        subprocess.run([str(TOOLS / "uv"), "lock", "--quiet"], cwd=project, check=True)
    return project


@contextlib.contextmanager
def built(project: Path) -> Iterator[str]:
    """The image of a project, removed in the end."""
    tag = f"pipecat-base-test:{secrets.token_hex(4)}"
    docker("build", "-q", "-t", tag, str(project))
    try:
        yield tag
    finally:
        docker("rmi", "-f", tag)


@contextlib.contextmanager
def running(case: str, folder: Path) -> Iterator[Container]:
    """The container of a case, ready."""
    with built(copied(case, folder)) as image, Container(image).wait_until_ready() as container:
        yield container


def call(container: Container, folder: Path, seconds: float = 3.0) -> str:
    """Call as a phone provider does, with a tone of 440 Hz; what the command printed."""
    audio.write_wav(str(folder / "tone.wav"), tone(440, seconds, 16000), 16000)
    return run("call", "tone.wav", "--url", f"ws://{container.address}/ws", cwd=folder).stdout
