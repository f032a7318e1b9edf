"""The manifests of deploy/kubernetes, as kubectl puts them together."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.support.launchers import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
ENVIRONMENT = Path(os.environ.get("KUBERNETES_VENV", ROOT / ".venv" / "kubernetes"))

Manifest = dict[str, Any]


def tool(name: str, *arguments: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program of the environment that ``make kubernetes`` makes, to its end."""
    return subprocess.run(
        [str(ENVIRONMENT / "bin" / name), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@functools.cache
def text() -> str:
    """What ``kubectl apply -k`` sends."""
    made = tool("kubectl", "kustomize", str(FOLDER))
    assert made.returncode == 0, made.stderr
    return made.stdout


def objects() -> list[Manifest]:
    """Each object; a new copy for each caller."""
    return list(yaml.safe_load_all(text()))


def named(kind: str, among: list[Manifest] | None = None) -> Manifest:
    """The only object of its kind."""
    (found,) = [one for one in among or objects() if one["kind"] == kind]
    return found


def pod_of(deployment: Manifest) -> Manifest:
    """What each pod of it is."""
    pod: Manifest = deployment["spec"]["template"]["spec"]
    return pod


def container_of(deployment: Manifest) -> Manifest:
    """Its only container."""
    (container,) = pod_of(deployment)["containers"]
    return dict(container)


def variables_of(deployment: Manifest) -> dict[str, str]:
    """What the manifest itself sets in the container's environment."""
    return {one["name"]: one["value"] for one in container_of(deployment)["env"]}
