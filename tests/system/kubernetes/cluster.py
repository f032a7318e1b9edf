"""The manifests on the cluster of KUBECONFIG, with what a test on one small node must change."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from tests.support.launchers import until
from tests.system.kubernetes.manifests import ENVIRONMENT, Manifest, container_of, named, objects, pod_of, tool

IMAGE = os.environ.get("BOT_IMAGE", "bot:1")
PATIENCE = 120.0
"""Seconds until a pod has started while calls and other starts use the node."""
OLDER: dict[str, str] = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}
"""What Kubernetes had before, in the same shape but for the fields that it does not know and leaves out."""


def kubectl(*arguments: str, stdin: str | None = None, timeout: float = 2 * PATIENCE) -> str:
    """Its output; a failure shows what it said."""
    done = tool("kubectl", *arguments, stdin=stdin, timeout=timeout)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout.strip()


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """kubectl beside the test, no longer than the block."""
    command = [str(ENVIRONMENT / "bin" / "kubectl"), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


@functools.cache
def api_versions() -> frozenset[str]:
    """What the cluster serves."""
    return frozenset(kubectl("api-versions").split())


@dataclass(frozen=True)
class Pod:
    name: str
    is_ready: bool
    is_going: bool
    """It was told to end."""
    is_placed: bool
    """A node has it."""


class Bot:
    """The manifests, applied in a namespace of their own; the namespace is deleted in the end.

    Args:
        replicas: Pods to begin with.
        variables: Of the container's environment, in place of the manifest's.
    """

    def __init__(self, replicas: int, **variables: str) -> None:
        self.namespace = self.label = f"pipecat-base-test-{secrets.token_hex(3)}"
        """Its pods have a label of that name: a drain must not touch others."""
        kubectl("create", "namespace", self.namespace)
        kubectl("label", "namespace", self.namespace, "pod-security.kubernetes.io/enforce=restricted")
        try:
            # What an old cluster does not know would be an error; there it is left out.
            made = adapted(self.label, variables)
            self.kubectl("apply", "--validate=false", "-f", "-", stdin=yaml.safe_dump_all(made))
            self.scale(replicas)
            self.wait_for_pods(replicas)
        except BaseException:
            self.delete()
            raise

    def __enter__(self) -> Bot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            print(tool("kubectl", "-n", self.namespace, "describe", "pods").stdout[-20000:])
            print(tool("kubectl", "-n", self.namespace, "get", "events").stdout[-20000:])
        self.delete()

    def delete(self) -> None:
        # Its calls are over. A namespace would wait for half of its pods' grace period.
        self.kubectl("delete", "deployment,horizontalpodautoscaler", "--all")
        self.kubectl("delete", "pods", "--all", "--grace-period=1", "--wait=false")
        kubectl("delete", "namespace", self.namespace, "--wait=false")

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    @functools.cached_property
    def address(self) -> str:
        """``/ws`` through the NodePort."""
        (port,) = self.get("service", "bot")["spec"]["ports"]
        node, *_ = self.get("nodes")["items"]
        (host,) = [one["address"] for one in node["status"]["addresses"] if one["type"] == "InternalIP"]
        return f"ws://{host}:{port['nodePort']}/ws"

    @contextlib.contextmanager
    def forwarded(self, name: str) -> Iterator[str]:
        """``/ws`` of one pod, past the Service."""
        with running("-n", self.namespace, "port-forward", f"pod/{name}", ":8080") as forwarding:
            assert forwarding.stdout is not None
            line = forwarding.stdout.readline()
            found = re.match(r"Forwarding from (127\.0\.0\.1:\d+) ", line)
            assert found, line
            yield f"ws://{found[1]}/ws"

    @contextlib.contextmanager
    def prints_warnings(self) -> Iterator[None]:
        """Print what the pods of this moment log above INFO during the block, and how their logs end."""
        with contextlib.ExitStack() as followed, tempfile.TemporaryDirectory() as folder:
            for pod in sorted(self.names()):
                log = followed.enter_context((Path(folder) / pod).open("w"))
                command = [str(ENVIRONMENT / "bin" / "kubectl"), "-n", self.namespace, "logs", "-f", "--tail=0", pod]
                following = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
                followed.callback(following.wait)
                followed.callback(following.terminate)
            yield
            for path in sorted(Path(folder).iterdir()):
                lines = path.read_text(errors="replace").splitlines()
                warnings = [line for line in lines[:-2] if "| INFO" not in line and "| DEBUG" not in line]
                print(f"  {path.name}:", *warnings[-20:], *lines[-2:], sep="\n    ")

    def pods(self) -> list[Pod]:
        """Those that are there, oldest first."""
        found = sorted(self.get("pods")["items"], key=lambda pod: pod["metadata"]["creationTimestamp"])
        return [
            Pod(
                pod["metadata"]["name"],
                any(one["type"] == "Ready" and one["status"] == "True" for one in conditions),
                "deletionTimestamp" in pod["metadata"],
                "nodeName" in pod["spec"],
            )
            for pod in found
            for conditions in [pod["status"].get("conditions", [])]
        ]

    def names(self, condition: Callable[[Pod], bool] = lambda pod: True) -> set[str]:
        """Of the pods for which it is true."""
        return {pod.name for pod in self.pods() if condition(pod)}

    def staying(self) -> set[str]:
        """The names of pods that are ready and were not told to end."""
        return self.names(lambda pod: pod.is_ready and not pod.is_going)

    def going(self) -> set[str]:
        """The names of pods that were told to end and have not."""
        return self.names(lambda pod: pod.is_going)

    def scale(self, replicas: int) -> None:
        self.kubectl("scale", "deployment/bot", f"--replicas={replicas}")

    def wait_for_pods(self, count: int) -> None:
        """Until so many are ready, beside those that end."""
        until(lambda: len(self.staying()) == count, f"{count} pods are ready", PATIENCE)

    def wait_for_end_of(self, names: set[str]) -> None:
        until(lambda: not names & self.names(), "they have ended", PATIENCE)


def adapted(label: str, variables: dict[str, str]) -> list[Manifest]:
    """The manifests for a small cluster, which may be an old one."""
    made = objects()
    deployment = named("Deployment", made)
    deployment["spec"]["template"]["metadata"]["labels"][label] = ""
    (container,) = pod_of(deployment)["containers"]
    container["image"] = IMAGE
    # Old and new pods at once must fit on the node, however small it is.
    container["resources"]["requests"]["cpu"] = "100m"
    container["resources"]["requests"]["memory"] = "64Mi"
    assert variables.keys() <= {one["name"] for one in container_of(deployment)["env"]}
    for one in container["env"]:
        one["value"] = variables.get(one["name"], one["value"])
    named("Service", made)["spec"]["type"] = "NodePort"
    for one in made:
        if one["apiVersion"] not in api_versions():
            one["apiVersion"] = OLDER[one["apiVersion"]]
    return made
