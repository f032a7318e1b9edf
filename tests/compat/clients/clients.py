"""Programs of the environment that ``make clients`` makes: each is its package's own, unmodified."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.support.launchers import PATIENCE, ROOT, Launcher, environment

ENVIRONMENT = Path(os.environ.get("CLIENTS_VENV", ROOT / ".venv" / "clients"))
KEY = "pk_test"
PERSONAL_TOKEN = "pcc_pat_test"
"""A private key in the form that ``auth use-pat`` takes."""
START_SESSION = Path(__file__).parent / "start_session.py"


def variables(home: Path, **more: str) -> dict[str, str]:
    """Of a user who has never logged in anywhere, with a terminal that no line is too long for."""
    path = f"{ENVIRONMENT / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**environment(), "HOME": str(home), "PATH": path, "COLUMNS": "400", **more}


def run(
    program: str, *arguments: str, home: Path, timeout: float = PATIENCE, stdin: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run one to its end, in an empty folder."""
    return subprocess.run(
        [str(ENVIRONMENT / "bin" / program), *arguments],
        cwd=home,
        env=variables(home, **more),
        capture_output=True,
        text=True,
        input=stdin,
        timeout=timeout,
    )


def host(launcher: Launcher) -> str:
    return f"http://127.0.0.1:{launcher.port}"


def cloud(launcher: Launcher, *arguments: str, home: Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """``pipecat cloud …`` of somebody whose token is the gateway's key."""
    login: dict[str, Any] = {"PIPECAT_API_HOST": host(launcher), "PIPECAT_TOKEN": KEY, "PIPECAT_ORG": "my-org"}
    return run("pipecat", "cloud", *arguments, home=home, **{**login, **more})


def start_session(launcher: Launcher, agent: str = "my-agent", key: str = KEY, *, home: Path, **params: Any) -> Any:
    """What the SDK's ``Session(…).start()`` returned, or told of its error."""
    arguments = (str(START_SESSION), agent, key, json.dumps(params))
    done = run("python", *arguments, home=home, PIPECAT_API_HOST=host(launcher))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
