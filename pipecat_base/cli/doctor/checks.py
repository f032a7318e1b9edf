"""Checks of this machine and of the services that the settings name. They block, and change nothing."""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from urllib.parse import quote

from pipecat_base.bot.packages import Packages, unused
from pipecat_base.config.settings import Settings
from pipecat_base.errors import PackagesConflict, PipecatUnusable, PortUnavailable
from pipecat_base.http_client import NoResponse, send
from pipecat_base.server import server
from pipecat_base.server.limits import connections_for, descriptor_limit, raise_descriptor_limit
from pipecat_base.server.paths import CAPABILITIES

NEWEST_TESTED_PYTHON = (3, 14)
SMALL_MEMORY_BYTES = 512 * 1024 * 1024
"""As the manifests in deploy/kubernetes request for a pod."""
HTTP_TIMEOUT_SECONDS = 3.0
PIP_TIMEOUT_SECONDS = 5.0
MAX_CONFLICTS = 5
MAX_CLOCK_DRIFT_SECONDS = 30.0
"""Signatures and tokens are valid for minutes, and a Date header is rounded to seconds."""
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}
CGROUPS = Path("/sys/fs/cgroup")
CGROUP_OF_PROCESS = Path("/proc/self/cgroup")
TWILIO_API = "https://api.twilio.com"
GRAPH_API = "https://graph.facebook.com/v23.0"


class FindingStatus(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True)
class Finding:
    status: FindingStatus
    check: str
    text: str
    fix: str = ""

    @property
    def text_and_fix(self) -> str:
        return " ".join(f"{self.text}. {self.fix}".split()) if self.fix else self.text


Check = tuple[str, Callable[[], Sequence[Finding]]]
ok = partial(Finding, FindingStatus.OK)
warning = partial(Finding, FindingStatus.WARNING)
problem = partial(Finding, FindingStatus.PROBLEM)
not_checked = partial(Finding, FindingStatus.NOT_CHECKED)


def python() -> Sequence[Finding]:
    """Check for a Python that is too new; one that is too old cannot run this program."""
    running = platform.python_version()
    if sys.version_info[:2] > NEWEST_TESTED_PYTHON:
        newest = "{}.{}".format(*NEWEST_TESTED_PYTHON)
        return [warning("python", f"{running} is newer than {newest}, the newest that is tested", f"Use {newest}.")]
    return [ok("python", running)]


def pipecat() -> Sequence[Finding]:
    from pipecat_base.bot import compatibility, installed

    try:
        if not compatibility.require_release():
            return [warning("pipecat-ai", "not installed", "Install it for a bot that uses it: pip install pipecat-ai")]
        verdict = compatibility.require_session_types(cloud=False)
    except PipecatUnusable as error:
        return [problem("pipecat-ai", error.message.rstrip(":."), f"{error.remedy[:1].upper()}{error.remedy[1:]}")]
    version = installed.version(installed.PIPECAT) or "(none)"
    return [ok("pipecat-ai", version), *(warning("pipecat-ai", text.rstrip("."), "") for text in verdict.warnings)]


def packages(settings: Settings, site: str | None) -> Sequence[Finding]:
    """Check that the launcher's packages in ``site`` fit the bot's; pip knows it of a single environment."""
    if site is None:
        return _packages_by_pip()
    try:
        Packages(site, sys.path).check(unused=unused(settings.gateway, settings.files))
    except PackagesConflict as error:
        return [problem("packages", error.message.rstrip("."), error.remedy)]
    return [ok("packages", "the launcher's and yours fit each other")]


def _packages_by_pip() -> Sequence[Finding]:
    uv = shutil.which("uv")
    if importlib.util.find_spec("pip") is not None:
        # -P: a file in this folder with the name of one of Python's modules must not be imported instead of it.
        command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "check"]
    elif uv is not None:
        command = [uv, "pip", "check", "--python", sys.executable]
    else:
        return [not_checked("packages", "neither pip nor uv is installed")]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT_SECONDS, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [not_checked("packages", f"pip check took longer than {PIP_TIMEOUT_SECONDS:g} s")]
    if ended.returncode == 0:
        return [ok("packages", "all fit each other")]
    # pip prints a line for each conflict; uv prints them to standard error, after a heading.
    lines = [line.strip() for line in (ended.stdout or ended.stderr).splitlines() if line.strip()]
    conflicts = [line.rstrip(".") for line in lines if " require" in line]
    if not conflicts:
        reason = lines[-1] if lines else f"it ended with status {ended.returncode}"
        return [not_checked("packages", f"pip check: {reason}")]
    return [warning("packages", line, "Install versions that fit.") for line in conflicts[:MAX_CONFLICTS]]


def ports(settings: Settings) -> Sequence[Finding]:
    ports = [("port", settings.server.host, settings.server.port)]
    if settings.telemetry.metrics_port is not None:
        ports.append(
            ("metrics port", settings.telemetry.metrics_host or settings.server.host, settings.telemetry.metrics_port)
        )
    return [_port(*each) for each in ports]


def _port(check: str, host: str, number: int) -> Finding:
    try:
        server.listen(host, number).close()
    except PortUnavailable as error:
        if _is_pipecat_base(host, number):
            return ok(check, f"{number} on {host} is in use, by a pipecat-base that runs already")
        return problem(check, error.message.rstrip("."), error.remedy)
    except OSError as error:  # an unknown host name, for example
        return problem(check, f"Cannot listen on {host} port {number}: {error.strerror or error}", "Set PIPECAT_HOST.")
    return ok(check, f"{number} on {host} is free")


def _is_pipecat_base(host: str, port: int) -> bool:
    url = f"{server.http_address(LOOPBACK_OF.get(host, host), port)}{CAPABILITIES}"
    try:
        response = send("GET", url, timeout=HTTP_TIMEOUT_SECONDS)
        json.loads(response.content)
    except (NoResponse, ValueError):
        return False
    return response.status == 200


def limits(settings: Settings) -> Sequence[Finding]:
    raise_descriptor_limit()  # as the launcher does
    files = open_files(settings, descriptor_limit())
    if not (CGROUPS / "cgroup.controllers").exists():
        reason = "control groups of version 1 are not read"
        return [files, not_checked("memory", reason), not_checked("cpus", reason)]
    count = len(os.sched_getaffinity(0))
    return [files, memory(settings, cgroup_limit("memory.max")), cpus(count, cgroup_limit("cpu.max"))]


def open_files(settings: Settings, descriptors: int) -> Finding:
    connections = settings.limits.max_connections or connections_for(descriptors)
    wanted = settings.sessions.max_sessions
    text = f"{descriptors} open files make {connections} connections"
    if wanted is None or wanted <= connections:
        return ok("open files", text)
    if settings.limits.max_connections is not None:
        text = f"PIPECAT_MAX_CONNECTIONS={connections} is less than MAX_SESSIONS={wanted}"
        return problem("open files", text, "Raise the one or lower the other.")
    fix = (
        f"Allow {3 * wanted} (ulimit -n {3 * wanted}, docker run --ulimit nofile={3 * wanted}), or lower MAX_SESSIONS."
    )
    return problem("open files", f"{text}, fewer than MAX_SESSIONS={wanted}", fix)


def memory(settings: Settings, limit: float | None) -> Finding:
    if limit is None:
        return ok("memory", "no limit is set")
    text = f"the limit is {limit / 2**20:.0f} MiB"
    sessions, each = settings.sessions.max_sessions, settings.workers.max_memory_bytes
    if (
        sessions is not None
        and each is not None
        and settings.workers.isolation == "process"
        and sessions * each > limit
    ):
        text += f", less than MAX_SESSIONS={sessions} calls of MAX_SESSION_MEMORY_BYTES={each}"
        return warning("memory", text, "Raise the container's limit, or lower one of the two.")
    if limit < SMALL_MEMORY_BYTES:
        fix = f"Give the container {SMALL_MEMORY_BYTES // 2**20} MiB or more (docker run --memory 1g)."
        return warning("memory", f"{text}, which is little for pipecat", fix)
    return ok("memory", text)


def cpus(count: int, limit: float | None) -> Finding:
    if limit is not None and limit < 1:
        text = f"the limit is {limit:g} CPU: calls stutter while the process is halted"
        return warning("cpus", text, "Allow one CPU or more (docker run --cpus 1), or set no limit.")
    return ok("cpus", f"{count}" if limit is None or limit >= count else f"{limit:g} of {count}")


def cgroup_limit(name: str, of_process: Path = CGROUP_OF_PROCESS, cgroups: Path = CGROUPS) -> float | None:
    """The lowest limit, in bytes or CPUs, of this process's cgroup (version 2) and of those above it: cgroups(7)."""
    limits = []
    with contextlib.suppress(OSError, ValueError):
        entries = of_process.read_text().splitlines()
        group = cgroups / next((entry[3:].strip("/") for entry in entries if entry.startswith("0::")), "")
        for folder in (group, *group.parents):
            if folder.is_relative_to(cgroups) and (folder / name).exists():
                value, period, *_ = [*(folder / name).read_text().split(), "1"]
                if value != "max":
                    limits.append(int(value) / int(period))
    return min(limits, default=None)


def folders(settings: Settings) -> Sequence[Finding]:
    named = {
        "PCC_LOG_DIR": settings.logs.folder,
        "PIPECAT_REPORTS_DIR": settings.telemetry.reports_dir,
        "PIPECAT_UPLOADS_FOLDER": settings.files.uploads_folder,
    }
    return [_folder(variable, Path(folder)) for variable, folder in named.items() if folder is not None]


def _folder(variable: str, folder: Path) -> Finding:
    check = f"folder {folder}"
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not existing.is_dir():
        return problem(check, f"{existing} is not a folder", f"Set {variable} to another one.")
    if not os.access(existing, os.W_OK | os.X_OK):
        text = f"uid {os.getuid()} cannot write to {existing}"
        return problem(check, text, f"Change its owner, or set {variable} to another one.")
    return ok(check, "can be written to" if existing == folder.absolute() else "can be made")


def daily(settings: Settings) -> Sequence[Finding]:
    """https://docs.daily.co/reference/rest-api/rooms/list-rooms"""
    if settings.providers.daily_api_key is None:
        return []
    url = f"{settings.providers.daily_api_url.rstrip('/')}/rooms?limit=1"
    authorization = f"Bearer {settings.providers.daily_api_key}"
    return [_credentials("daily", "DAILY_API_KEY", url, authorization, "dashboard.daily.co > Developers")]


def twilio(variables: Mapping[str, str], api: str = TWILIO_API) -> Sequence[Finding]:
    """https://www.twilio.com/docs/iam/api/account"""
    account, token = (variables.get(name, "").strip() for name in ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"))
    if not (account or token):
        return []
    if not (account and token):
        missing = "TWILIO_AUTH_TOKEN" if account else "TWILIO_ACCOUNT_SID"
        return [warning("twilio", f"{missing} is not set: pipecat hangs up with both", f"Set {missing}.")]
    if not account.startswith("AC"):  # https://www.twilio.com/docs/glossary/what-is-a-sid
        return [not_checked("twilio", "TWILIO_ACCOUNT_SID is a stand-in: an account's begins with AC")]
    url = f"{api}/2010-04-01/Accounts/{quote(account, safe='')}.json"
    authorization = f"Basic {base64.b64encode(f'{account}:{token}'.encode()).decode()}"
    name = "TWILIO_ACCOUNT_SID with TWILIO_AUTH_TOKEN"
    return [_credentials("twilio", name, url, authorization, "console.twilio.com")]


def whatsapp(settings: Settings, api: str = GRAPH_API) -> Sequence[Finding]:
    """https://developers.facebook.com/docs/graph-api/reference/whats-app-business-account-to-number-current-status/"""
    needed = {
        "WHATSAPP_TOKEN": settings.whatsapp.token,
        "WHATSAPP_PHONE_NUMBER_ID": settings.whatsapp.phone_number_id,
        "WHATSAPP_APP_SECRET": settings.whatsapp.app_secret,
    }
    if not any(needed.values()):
        return []
    missing = ", ".join(name for name, value in needed.items() if not value)
    findings = [warning("whatsapp", f"off without {missing}", f"Set {missing}.")] if missing else []
    token, number = settings.whatsapp.token, settings.whatsapp.phone_number_id
    if token and number:
        url = f"{api}/{quote(number, safe='')}?fields=id"
        name = "WHATSAPP_TOKEN with WHATSAPP_PHONE_NUMBER_ID"
        source = "developers.facebook.com > WhatsApp > API Setup"
        findings.append(_credentials("whatsapp", name, url, f"Bearer {token}", source))
    return findings


def _credentials(check: str, name: str, url: str, authorization: str, source: str) -> Finding:
    host = _host(url)
    headers = {"Authorization": authorization}
    try:
        status = send("GET", url, headers=headers, timeout=HTTP_TIMEOUT_SECONDS, max_bytes=0).status
    except NoResponse as error:
        return not_checked(check, f"{host} cannot be reached: {error}")
    if status in (400, 401, 403, 404):
        return problem(check, f"{host} refuses {name} with {status}", f"Get a valid one from {source}.")
    if status != 200:
        return not_checked(check, f"{host} answered {status}")
    return ok(check, f"{host} accepts {name}")


def clock(url: str) -> Sequence[Finding]:
    """Compare this machine's clock with the Date header of a server."""
    sent = time.time()
    try:
        response = send("HEAD", url, timeout=HTTP_TIMEOUT_SECONDS, max_bytes=0)
        server_time = parsedate_to_datetime(response.headers["date"] or "").timestamp()
    except NoResponse as error:
        return [not_checked("clock", f"no server could be asked for the time: {error}")]
    except ValueError:
        return [not_checked("clock", "no server could be asked for the time")]
    ahead = (sent + time.time()) / 2 - server_time
    if abs(ahead) <= MAX_CLOCK_DRIFT_SECONDS:
        return [ok("clock", f"agrees with {_host(url)}")]
    text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {_host(url)}"
    fix = "Synchronise it: timedatectl set-ntp true."
    return [warning("clock", f"{text}: signatures and tokens may be refused", fix)]


def _host(url: str) -> str:
    """Host and port, without a password."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]
