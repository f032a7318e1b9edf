"""Every subcommand of ``pipecat cloud``: it works with a gateway, or the gateway says why it cannot."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.compat.clients.clients import ENVIRONMENT, KEY, PERSONAL_TOKEN, cloud, host, run
from tests.support.launchers import Launcher

LIST_COMMANDS = Path(__file__).parent / "list_commands.py"

SERVED = {
    "agent list": ("--region here", "my-agent"),
    "agent status": ("my-agent", "Ready: True"),
    "agent sessions": ("my-agent", "{session}"),
    "agent logs": ("my-agent", "Session started"),
    "agent deployments": ("my-agent", "here"),
    "agent stop": ("my-agent --session-id {session} --force", "stopped successfully"),
    "auth use-pat": ("", "Authenticated via PAT"),
    "auth whoami": ("", "This gateway"),
    "organizations list": ("", "This gateway"),
    "organizations select": ("--organization here", "Current organization set to This gateway"),
    "organizations default-region": ("", "Default region: here"),
    "organizations properties list": ("", "here"),
    "organizations properties schema": ("", "The region of the only agent"),
    "regions list": ("", "This gateway"),
}
"""Arguments, and what is printed. ``agent start`` needs a free slot: it is in test_command_line.py."""

WITHOUT_GATEWAY = {
    "auth logout": ("", 0, "credentials for Pipecat Cloud removed"),
    "auth login": ("", 1, "Failed to fetch authentication configuration"),
    "agent scale": ("", 0, "Not implemented"),
    "docker build-push": ("", 1, "Agent name is required"),
}
"""Commands that ask nothing of an API, or that log in with a browser at the platform."""

ONE_BOT = "deploy, change or delete the server or container that it runs in"
KEYS = "PIPECAT_PUBLIC_API_KEYS"
GITHUB = "does not deploy from GitHub"
IMAGES = "builds no images"
SECRETS = "the bot reads them from the environment"
PROFILES = "no agent profiles"
SPENDING = "no spend limit"
REGIONS = "no others to register or delete"
REFUSED = {
    "deploy": ("my-agent image:1 --yes --no-credentials", ONE_BOT),
    "agent delete": ("my-agent --force", ONE_BOT),
    "agent link": ("my-agent --repo a/b --branch main", ONE_BOT),
    "agent unlink": ("my-agent --force", ONE_BOT),
    "agent deploy": ("my-agent --github", ONE_BOT),
    "agent profiles list": ("", PROFILES),
    "agent profiles create": ("a --cpu 1 --memory 1Gi", PROFILES),
    "agent profiles update": ("a --display-name b", PROFILES),
    "agent profiles disable": ("a", PROFILES),
    "agent profiles enable": ("a", PROFILES),
    "build logs": ("a", IMAGES),
    "build status": ("a", IMAGES),
    "build list": ("", IMAGES),
    "github connect": ("", GITHUB),
    "github status": ("", GITHUB),
    "github disconnect": ("--yes", GITHUB),
    "github repos": ("", GITHUB),
    "github branches": ("a/b", GITHUB),
    "organizations keys list": ("", KEYS),
    "organizations keys create": ("--name a", KEYS),
    "organizations keys revoke": ("", KEYS),
    "organizations keys use": ("", KEYS),
    "organizations registry-keys list": ("", "no registry"),
    "organizations registry-keys mint": ("--name a", "no registry"),
    "organizations registry-keys revoke": ("a --force", "no registry"),
    "organizations properties set": ("a b", "nothing to set"),
    "regions register": ("pce-a", REGIONS),
    "regions show": ("pce-a", REGIONS),
    "regions delete": ("pce-a --yes", REGIONS),
    "regions enroll-token": ("pce-a", REGIONS),
    "secrets set": ("a K=v --skip", SECRETS),
    "secrets unset": ("a K --skip", SECRETS),
    "secrets list": ("", SECRETS),
    "secrets delete": ("a --skip", SECRETS),
    "secrets image-pull-secret": ("a host user:password", SECRETS),
    "secrets reference": ("a --region here", SECRETS),
    "spend-limit show": ("", SPENDING),
    "spend-limit set": ("10", SPENDING),
    "spend-limit clear": ("--yes", SPENDING),
}


def test_each_subcommand_that_the_help_lists_is_tried() -> None:
    program = [str(ENVIRONMENT / "bin" / "python"), str(LIST_COMMANDS)]
    listed = json.loads(subprocess.run(program, capture_output=True, text=True, check=True).stdout)
    assert set(listed) == {*SERVED, *WITHOUT_GATEWAY, *REFUSED, "agent start"}


@pytest.mark.parametrize("command", SERVED)
def test_a_subcommand_works(gateway: Launcher, running: str, home: Path, command: str) -> None:
    arguments, printed = (text.format(session=running) for text in SERVED[command])
    done = cloud(gateway, *command.split(), *arguments.split(), home=home, stdin=f"{PERSONAL_TOKEN}\n")
    assert done.returncode == 0, done.stdout + done.stderr
    assert printed in done.stdout


@pytest.mark.parametrize("command", REFUSED)
def test_a_subcommand_says_why_a_gateway_cannot_do_it(gateway: Launcher, home: Path, command: str) -> None:
    arguments, reason = REFUSED[command]
    done = cloud(gateway, *command.split(), *arguments.split(), home=home)
    assert done.returncode == 1, done.stdout + done.stderr
    assert reason in done.stdout + done.stderr


@pytest.mark.parametrize("command", WITHOUT_GATEWAY)
def test_a_subcommand_does_not_need_the_gateway(gateway: Launcher, home: Path, command: str) -> None:
    arguments, status, printed = WITHOUT_GATEWAY[command]
    done = cloud(gateway, *command.split(), *arguments.split(), home=home)
    assert done.returncode == status, done.stdout + done.stderr
    assert printed in done.stdout + done.stderr


def test_logs_do_not_show_the_requests_of_the_command_line(gateway: Launcher, running: str, home: Path) -> None:
    cloud(gateway, "agent", "sessions", "my-agent", home=home)
    cloud(gateway, "agent", "list", home=home)
    done = cloud(gateway, "agent", "logs", "my-agent", "--limit", "1000", home=home)
    assert "Session started" in done.stdout
    assert "GET /v1/organizations/my-org/services/my-agent/sessions" not in done.stdout
    assert "GET /v1/organizations/my-org/services 200" not in done.stdout


def test_a_session_shows_its_lifecycle_its_start_and_its_resources(gateway: Launcher, running: str, home: Path) -> None:
    done = cloud(gateway, "agent", "stop", "my-agent", "--session-id", running, "--force", home=home)
    done = cloud(gateway, "agent", "sessions", "my-agent", "--id", running, home=home, PIPECAT_OUTPUT="rich")
    for line in ("Start request received", "Request arrived at agent", "Session completed", "Bot Start: 0s", "MB"):
        assert line in done.stdout


def test_without_an_organization_the_gateways_own_is_used(gateway: Launcher, home: Path) -> None:
    done = run("pipecat", "cloud", "agent", "list", home=home, PIPECAT_API_HOST=host(gateway), PIPECAT_TOKEN=KEY)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Agents for organization: here" in done.stdout
