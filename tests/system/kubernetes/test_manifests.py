"""deploy/kubernetes without a cluster: what each Kubernetes takes, and numbers that must fit together."""

from __future__ import annotations

import ipaddress
import os
import re
from pathlib import Path

import pytest
import yaml

from pipecat_base.config.settings import Settings
from pipecat_base.server.limits import FINAL_REQUESTS_SECONDS
from pipecat_base.sessions.registry import CLOSE_TIMEOUT
from tests.system.kubernetes import manifests
from tests.system.kubernetes.manifests import FOLDER, container_of, named, pod_of, tool, variables_of

VERSIONS = [f"1.{minor}" for minor in range(29, 38)]


@pytest.fixture
def deployment() -> manifests.Manifest:
    return named("Deployment")


@pytest.fixture
def settings(deployment: manifests.Manifest) -> Settings:
    """What the launcher reads in the pod."""
    return Settings.load(variables_of(deployment))


@pytest.mark.parametrize("version", VERSIONS)
def test_this_kubernetes_takes_every_object(version: str, tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(manifests.text())
    checked = tool("kubernetes-validate", "--strict", "-k", version, str(tmp_path / "all.yaml"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (checked.stdout + checked.stderr).count(" passed for resource ") == len(manifests.objects())


def test_a_field_that_kubernetes_does_not_know_would_be_found(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(manifests.text().replace("maxUnavailable: 0", "maxUnavailible: 0"))
    checked = tool("kubernetes-validate", "--strict", "-k", VERSIONS[0], str(tmp_path / "all.yaml"))
    assert checked.returncode == 1
    assert "maxUnavailible" in checked.stdout + checked.stderr


def test_every_file_is_applied() -> None:
    listed = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == sorted(file.name for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml")


def test_the_overlay_of_the_readme_is_one(tmp_path: Path) -> None:
    overlay, rule = re.findall(r"```yaml\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    overlay += rule.removeprefix("patches:\n")
    base = os.path.relpath(FOLDER, tmp_path)
    (tmp_path / "kustomization.yaml").write_text(overlay.replace("../pipecat-base/deploy/kubernetes", base))
    made = tool("kubectl", "kustomize", str(tmp_path))
    assert made.returncode == 0, made.stderr
    objects = list(yaml.safe_load_all(made.stdout))
    container = container_of(named("Deployment", objects))
    assert container["image"] == "registry.example.com/my-bot:7"
    assert container["resources"]["requests"]["cpu"] == "500m"
    assert named("NetworkPolicy", objects)["spec"]["egress"][-1]["ports"] == [{"port": 6379}]


def test_pods_are_restricted(deployment: manifests.Manifest) -> None:
    """By the rules of the Pod Security Standard of that name (kubernetes.io/docs/concepts/security)."""
    pod, container = pod_of(deployment), container_of(deployment)
    both = pod["securityContext"] | container["securityContext"]
    assert both["runAsNonRoot"] is True
    assert both["runAsUser"] > 0
    assert both["seccompProfile"] == {"type": "RuntimeDefault"}
    assert both["allowPrivilegeEscalation"] is False
    assert both["capabilities"] == {"drop": ["ALL"]}
    assert both["readOnlyRootFilesystem"] is True
    assert not both.keys() & {"privileged", "procMount", "seLinuxOptions", "sysctls", "windowsOptions"}
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers", "ephemeralContainers"}
    assert all(port.keys() == {"name", "containerPort"} for port in container["ports"])
    assert all(volume.keys() == {"name", "emptyDir"} for volume in pod["volumes"])
    assert pod["automountServiceAccountToken"] is False


def test_a_pod_may_take_as_long_to_end_as_the_launcher_does(deployment: manifests.Manifest, settings: Settings) -> None:
    sleep, seconds = container_of(deployment)["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    calls = settings.shutdown.timeout + settings.sessions.cancel_grace + CLOSE_TIMEOUT
    ending = 2 * settings.shutdown.teardown_timeout + FINAL_REQUESTS_SECONDS + 1
    assert pod_of(deployment)["terminationGracePeriodSeconds"] > int(seconds) + calls + ending


def test_no_call_is_longer_than_a_pod_that_ends_may_take(settings: Settings) -> None:
    assert settings.sessions.max_seconds is not None
    assert settings.sessions.max_seconds <= settings.shutdown.timeout


def test_a_pod_that_is_wedged_is_not_waited_for(deployment: manifests.Manifest, settings: Settings) -> None:
    container = container_of(deployment)
    _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) < container["livenessProbe"]["terminationGracePeriodSeconds"] < settings.shutdown.timeout


def test_an_update_never_has_fewer_pods_than_before(deployment: manifests.Manifest) -> None:
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in deployment["spec"], "the autoscaler's number would be set back by each apply"


def test_the_probes_ask_what_they_should(deployment: manifests.Manifest, settings: Settings) -> None:
    container = container_of(deployment)
    paths = {name: container[name]["httpGet"]["path"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert paths == {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    assert {container[name]["httpGet"]["port"] for name in paths} == {"http"}
    assert container["ports"] == [
        {"name": "http", "containerPort": settings.server.port},
        {"name": "metrics", "containerPort": settings.telemetry.metrics_port},
    ]
    assert container["readinessProbe"]["timeoutSeconds"] > settings.start.readyz_timeout


def test_the_other_objects_are_about_these_pods(deployment: manifests.Manifest) -> None:
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    autoscaler, service = named("HorizontalPodAutoscaler"), named("Service")
    spread, *more = pod_of(deployment)["topologySpreadConstraints"]
    assert not more
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert spread["labelSelector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["http"]
    target = autoscaler["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


@pytest.fixture
def policy() -> manifests.Manifest:
    spec: manifests.Manifest = named("NetworkPolicy")["spec"]
    return spec


def test_the_policy_is_about_these_pods_in_both_directions(
    deployment: manifests.Manifest, policy: manifests.Manifest
) -> None:
    assert policy["podSelector"]["matchLabels"] == deployment["spec"]["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]


def test_calls_and_monitoring_alone_reach_a_pod(deployment: manifests.Manifest, policy: manifests.Manifest) -> None:
    calls, metrics = policy["ingress"]
    assert calls == {"ports": [{"port": "http"}]}
    assert metrics["ports"] == [{"port": "metrics"}]
    assert metrics["from"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}},
    ]
    assert {port["name"] for port in container_of(deployment)["ports"]} == {"http", "metrics"}


def test_a_pod_reaches_names_https_and_webrtc_and_nothing_else(policy: manifests.Manifest) -> None:
    names, world = policy["egress"]
    assert {(port["protocol"], port["port"]) for port in names["ports"]} == {("UDP", 53), ("TCP", 53)}
    reached = {(port["protocol"], port["port"], port.get("endPort")) for port in world["ports"]}
    tcp = {("TCP", port, None) for port in (443, 3478, 5349, 7881)}
    assert reached == {*tcp, ("UDP", 1024, 65535)}


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::1"])
def test_a_pod_does_not_reach_its_nodes_credentials(policy: manifests.Manifest, address: str) -> None:
    asked = ipaddress.ip_address(address)
    for peer in (peer for rule in policy["egress"] for peer in rule["to"] if "ipBlock" in peer):
        block = peer["ipBlock"]
        excepted = any(asked in ipaddress.ip_network(network) for network in block.get("except", []))
        assert excepted or asked not in ipaddress.ip_network(block["cidr"])


def test_a_pod_has_a_limit_of_memory_and_of_what_it_writes(deployment: manifests.Manifest) -> None:
    resources = container_of(deployment)["resources"]
    assert resources["limits"]["memory"] == "1Gi"
    assert "cpu" not in resources["limits"]
    assert all(volume["emptyDir"]["sizeLimit"] for volume in pod_of(deployment)["volumes"])


def test_a_drained_node_leaves_a_pod_for_new_calls() -> None:
    spared = named("HorizontalPodAutoscaler")["spec"]["minReplicas"]
    assert spared > named("PodDisruptionBudget")["spec"]["maxUnavailable"] > 0
