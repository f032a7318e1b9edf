"""What is in the image, and what is not."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.system.image.docker import FULL, SLIM, TOOLS, VARIANTS, Container, docker
from tests.support.launchers import ROOT


@pytest.fixture(scope="module", params=[SLIM, FULL])
def archive(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The image's name, and its layers in a file."""
    path = str(tmp_path_factory.mktemp("image") / "image.tar")
    docker("save", "-o", path, request.param)
    return request.param, path


def locked(*names: str) -> set[str]:
    """``name==version`` of all that these locks have for the image's Python, in the index's spelling."""
    version = docker("run", "--rm", SLIM, "python", "-c", "import platform; print(platform.python_version())")
    here = {"python_full_version": version, "python_version": ".".join(version.split(".")[:2]), "sys_platform": "linux"}
    found = set()
    for name in names:
        for line in (ROOT / "requirements" / f"{name}.lock").read_text().splitlines():
            if line[:1].isalnum():
                requirement = Requirement(line.rstrip("\\ "))
                if requirement.marker is None or requirement.marker.evaluate(here):
                    found.add(f"{requirement.name}{requirement.specifier}")
    return found


def test_a_bill_of_materials_lists_every_locked_package(archive: tuple[str, str], tmp_path: Path) -> None:
    image, path = archive
    command = [str(TOOLS / "syft"), "scan", "--quiet", f"docker-archive:{path}", "-o", f"cyclonedx-json={tmp_path}/sbom"]
    subprocess.run(command, check=True, env={**os.environ, "SYFT_CHECK_FOR_APP_UPDATE": "false"})
    components = json.loads((tmp_path / "sbom").read_text())["components"]
    listed = [(component.get("purl", ""), component) for component in components]
    python = {
        f"{re.sub('[-_.]+', '-', component['name']).lower()}=={component['version']}"
        for purl, component in listed
        if purl.startswith("pkg:pypi/")
    }
    wanted = locked("launcher") | (locked("full", "client") if image == FULL else set())
    assert len(wanted) > 10
    assert wanted - python == set()
    debian = {component["name"] for purl, component in listed if purl.startswith("pkg:deb/")}
    assert {"tini", "libgl1"} <= debian


def test_the_licenses_of_every_locked_package_are_there() -> None:
    """And of uv, which is in the image as a program."""
    read = ["--rm", "--entrypoint", "sh", FULL, "-c", "cat /usr/share/doc/pipecat-base/third-party-notices*.txt"]
    notices = docker("run", *read)
    sections = re.findall(r"={80}\n(\S+==\S+)\nLicense: (.+)\n={80}\n", notices)
    wanted = locked("launcher", "full", "client")
    assert len(wanted) > 60
    assert wanted - {pin for pin, _ in sections} == set()
    assert any(pin.startswith("uv==") for pin, _ in sections)
    assert all(license_name != "not said" for _, license_name in sections)
    assert notices.count("Permission is hereby granted, free of charge") > 20


def test_nltks_data_is_where_the_replaced_image_has_it() -> None:
    assert docker("run", "--rm", "--entrypoint", "ls", SLIM, "/usr/local/share/nltk_data") == "tokenizers"


def test_no_layer_wastes_two_megabytes(archive: tuple[str, str]) -> None:
    """Three quarters of one are Debian's programs without their suid bits, which count twice."""
    rules = ["--lowestEfficiency", "0.99", "--highestWastedBytes", "2MB", "--highestUserWastedPercent", "0.03"]
    command = [str(TOOLS / "dive"), "--source", "docker-archive", archive[1], "--ci", *rules]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "CI": "true"})
    assert result.returncode == 0, result.stdout
    assert "Result:PASS" in result.stdout


WITHOUT_BYTECODE = """
import os, sys

sys.path.append("/opt/pipecat-base/site")
sys.dont_write_bytecode = True
for module in sys.argv[1:]:
    __import__(module)
specs = [module.__spec__ for module in list(sys.modules.values()) if getattr(module, "__spec__", None)]
print(sorted(spec.name for spec in specs if spec.cached and not os.path.exists(spec.cached)))
"""


@pytest.mark.parametrize(
    ("image", "modules"),
    [
        (SLIM, ["pipecat_base.launcher.launcher", "pipecatcloud_system"]),
        (FULL, ["pipecat_base.launcher.launcher", "pipecat.runner.utils", "pipecat.transports.smallwebrtc.transport", "daily"]),
        (FULL, ["pipecat_ai_prebuilt.frontend", "pipecat.audio.vad.silero", "pipecat.services.openai.llm"]),
    ],
)
def test_everything_that_a_start_imports_is_compiled(image: str, modules: list[str]) -> None:
    command = ["python", "-W", "ignore", "-c", WITHOUT_BYTECODE, *modules]
    assert docker("run", "--rm", "--entrypoint", command[0], image, *command[1:]).splitlines()[-1] == "[]"


def test_nothing_of_the_machine_that_built_it_stays(archive: tuple[str, str]) -> None:
    """Neither its certificate authorities nor its proxy or package index."""
    image, _ = archive
    authorities = "/etc/ssl/certs/ca-certificates.crt"
    same = [
        docker("run", "--rm", "--entrypoint", "sha256sum", which, authorities)
        for which in (image, os.environ["BASE_IMAGE"])
    ]
    assert same[0] == same[1]
    said = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image)
    said += docker("image", "inspect", image, "--format", "{{json .Config}}")
    base = docker("image", "inspect", os.environ["BASE_IMAGE"], "--format", "{{json .Config.Env}}")
    for name in ("proxy", "index_url", "PIP_", "UV_INDEX", "UV_DEFAULT_INDEX", "netrc"):
        assert name.lower() not in said.lower() or name.lower() in base.lower(), name
    files = "find / -xdev ( -name pip.conf -o -name uv.toml -o -name .netrc -o -name .pypirc )".split()
    assert docker("run", "--rm", "--entrypoint", files[0], image, *files[1:]) == ""


def found(image: str, *tests: str) -> str:
    """Files and folders of the image, as root sees them."""
    return docker("run", "--rm", "--user", "0", "--entrypoint", "find", image, "/", "-xdev", *tests)


@pytest.mark.parametrize("image", VARIANTS)
def test_no_file_gives_rights(image: str) -> None:
    assert found(image, "-type", "f", "-perm", "/6000") == ""
    assert "/usr/bin/su" in found(image, "-name", "su")


@pytest.mark.parametrize("image", VARIANTS)
def test_only_sticky_folders_are_for_everyone_to_write(image: str) -> None:
    everyone = ["-perm", "-0002", "!", "-type", "l"]
    assert found(image, *everyone, "!", "(", "-type", "d", "-perm", "-1000", ")") == ""
    assert "/tmp" in found(image, *everyone)


def test_it_holds_no_build_tools_lists_or_caches() -> None:
    with Container(SLIM, "--entrypoint", "sleep", command=("60",)) as container:
        for tool in ("gcc", "cc", "make", "g++"):
            assert container.run("sh", "-c", f"command -v {tool} || echo none") == "none"
        left = "find /var/lib/apt/lists /var/cache/apt /root/.cache -type f -size +0 2>/dev/null || true"
        assert container.run("sh", "-c", left) == ""
        packages = container.run("dpkg-query", "-W", "-f", "${Package}\n").splitlines()
        assert not [package for package in packages if package.endswith("-dev") or "mesa" in package]
        assert "tini" in packages
        assert container.run("sh", "-c", "find /opt/pipecat-base -name '*.pyc' | head -1") != ""


def test_its_labels_name_its_version() -> None:
    labels = json.loads(docker("image", "inspect", SLIM, "--format", "{{json .Config.Labels}}"))
    environment = json.loads(docker("image", "inspect", SLIM, "--format", "{{json .Config.Env}}"))
    version = labels["daily.co/pipecat-cloud-base-version"]
    assert f"IMAGE_VERSION={version}" in environment
