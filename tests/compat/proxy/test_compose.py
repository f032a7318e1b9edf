"""deploy/compose: what must fit together in it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipecat_base.config.reference import table
from pipecat_base.config.settings import Settings
from tests.support.launchers import ROOT

FOLDER = ROOT / "deploy" / "compose"
FILE = FOLDER / "compose.yaml"
OF_OTHERS = {"FORWARDED_ALLOW_IPS", "HOME"}
VALUES = {"DOMAIN": "bot.example.com", "BOT": "../../examples/echo"}


def services() -> dict[str, Any]:
    """As Compose would read the file."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return VALUES.get(name, default.lstrip("-"))

    content = yaml.safe_load(re.sub(r"\$\{([^}]+)\}", value, FILE.read_text()))
    found: dict[str, Any] = content["services"]
    return found


def test_it_is_yaml_before_its_variables_are_put_in() -> None:
    assert set(yaml.safe_load(FILE.read_text())["services"]) == set(services())


def test_the_launcher_takes_these_settings() -> None:
    variables = services()["bot"]["environment"]
    assert set(variables) - OF_OTHERS <= {row.variable for row in table()}
    settings = Settings.load({**variables, "PIPECAT_PUBLIC_API_KEYS": "pk"})
    assert settings.gateway.public_url == "https://bot.example.com"
    assert (settings.sessions.max_seconds or 0) <= settings.shutdown.timeout


def test_without_keys_it_does_not_start() -> None:
    with pytest.raises(Exception, match="PIPECAT_PUBLIC_API_KEYS"):
        Settings.load(services()["bot"]["environment"])


def test_a_container_is_killed_only_after_its_calls_had_their_time() -> None:
    bot = services()["bot"]
    assert int(bot["stop_grace_period"].removesuffix("s")) >= int(bot["environment"]["SHUTDOWN_TIMEOUT"]) + 30


def test_every_container_has_limits_of_memory_and_processes() -> None:
    example = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for service in [*services().values(), *example.values()]:
        assert re.fullmatch(r"[1-9]\d*[gm]", service["mem_limit"])
        assert 256 <= service["pids_limit"] <= 1024


def test_only_the_proxy_is_published() -> None:
    assert [name for name, service in services().items() if "ports" in service] == ["caddy"]


def test_every_file_that_is_named_is_there() -> None:
    named = [volume.split(":")[0] for volume in services()["caddy"]["volumes"]] + [services()["bot"]["build"]]
    assert [name for name in named if name.startswith("..") and not (FOLDER / name).exists()] == []


def test_caddy_takes_its_file_with_these_variables(tmp_path: Path) -> None:
    program = shutil.which("caddy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("this machine lacks caddy: apt-get install caddy")
    adapted = subprocess.run(
        [
            program,
            "adapt",
            "--config",
            str(ROOT / "deploy" / "caddy" / "Caddyfile"),
            "--adapter",
            "caddyfile",
            "--validate",
        ],
        env={"HOME": str(tmp_path), **services()["caddy"]["environment"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert '"bot.example.com"' in adapted.stdout
    assert '"dial":"bot:8080"' in adapted.stdout
