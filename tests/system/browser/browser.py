"""Scenarios with a real Chromium. Each is one of the ``*.mjs`` here: JSON in, JSON out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.support.launchers import ROOT, Launcher

HERE = Path(__file__).parent
ECHO = ROOT / "examples" / "echo"
NAMES = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT = 120.0
"""Seconds after which a scenario is given up; its steps have less of their own."""

KEEP_MICROPHONES = """
    window.microphones = [];
    const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    navigator.mediaDevices.getUserMedia = async (asked) => {
        const stream = await ask(asked);
        window.microphones.push(stream);
        return stream;
    };
"""
"""Run before the page's own scripts: what becomes of the streams can be asked afterwards."""


def chromium() -> str:
    """The browser: ``CHROMIUM``, or the first one found."""
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    assert found, f"none of {', '.join(NAMES)} is installed; CHROMIUM can name another one"
    return found


def gateway(bot: Path = ECHO, **variables: Any) -> Launcher:
    """A launcher with the page and all that it calls; nothing outside this machine is asked."""
    defaults: dict[str, Any] = {"PIPECAT_GATEWAY": "1", "PIPECAT_ICE_SERVERS": "[]", "DRAIN_NOTICE": "0"}
    return Launcher(bot, **{**defaults, **variables})


def url(launcher: Launcher) -> str:
    return f"http://127.0.0.1:{launcher.port}"


def drive(scenario: str, **given: Any) -> dict[str, Any]:
    """Run a scenario to its end; what it reports."""
    return _node(scenario, {"chromium": chromium(), **given})


def modules(**given: Any) -> dict[str, Any]:
    """Call the page's modules that need no browser."""
    return _node("modules", given)


def _node(scenario: str, given: dict[str, Any]) -> dict[str, Any]:
    assert (HERE / "node_modules").is_dir(), f"npm ci --prefix {HERE} was not run"
    result = subprocess.run(
        ["node", f"{scenario}.mjs"],
        cwd=HERE,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    if result.returncode != 0:
        raise AssertionError(f"{scenario}: {_told(result.stdout)}{result.stderr}")
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def _told(output: str) -> str:
    """What a scenario that failed has to say, in lines."""
    try:
        report = json.loads(output)
    except ValueError:
        return output
    parts = [report["failed"]]
    parts += [f"{name}:\n{report[name]}" for name in ("shown",) if report.get(name)]
    parts += [f"{name}:\n" + "\n".join(report[name]) for name in ("requests", "complaints") if report[name]]
    return "\n\n".join(parts)
