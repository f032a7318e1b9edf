"""This machine: Python, packages, port, limits, folders."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipecat_base.bot import installed
from pipecat_base.bot.packages import Packages, unused
from pipecat_base.cli.doctor import web
from pipecat_base.cli.doctor.findings import Finding, not_checked, ok, problem, warning
from pipecat_base.config.settings import Settings
from pipecat_base.errors import PackagesConflict, PipecatUnusable, PortUnavailable
from pipecat_base.server import server
from pipecat_base.server.limits import connections_for, descriptor_limit, raise_descriptor_limit
from pipecat_base.server.paths import CAPABILITIES

NEWEST_PYTHON = (3, 14)
"""That is tested."""
SMALL_MEMORY = 512 * 1024 * 1024
"""Bytes, as the manifests in deploy/kubernetes request for a pod."""
PIP_TIMEOUT = 5.0
"""Seconds."""
MAX_LINES = 5
"""Of pip's."""
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where a server that listens on every address is asked."""
CGROUPS = Path("/sys/fs/cgroup")
OF_PROCESS = Path("/proc/self/cgroup")


def python() -> Sequence[Finding]:
    """Its version. One that is too old does not come this far."""
    running = platform.python_version()
    if sys.version_info[:2] > NEWEST_PYTHON:
        newest = "{}.{}".format(*NEWEST_PYTHON)
        return [warning("python", f"{running} is newer than {newest}, the newest that is tested", f"Use {newest}.")]
    return [ok("python", running)]


def packages(settings: Settings, site: str | None) -> Sequence[Finding]:
    """Whether the launcher's packages and the bot's fit each other.

    Args:
        site: The folder of the launcher's packages, where they are not in the bot's environment.
    """
    if site is None:
        return _packages_by_pip()
    try:
        Packages(site, sys.path).check(unused=unused(settings))
    except PackagesConflict as error:
        return [problem("packages", error.message.rstrip("."), error.remedy)]
    return [ok("packages", "the launcher's and yours fit each other")]


def _packages_by_pip() -> Sequence[Finding]:
    """Where all packages are in one environment, its installer knows which do not fit."""
    uv = shutil.which("uv")
    if importlib.util.find_spec("pip") is not None:
        # -P: what is called like one of Python's modules in this folder must not stand for it.
        command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "check"]
    elif uv is not None:
        command = [uv, "pip", "check", "--python", sys.executable]
    else:
        return [not_checked("packages", "neither pip nor uv is here to ask")]
    try:
        checked = subprocess.run(command, capture_output=True, text=True, timeout=PIP_TIMEOUT, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return [not_checked("packages", f"pip check took longer than {PIP_TIMEOUT:g} s")]
    if checked.returncode == 0:
        return [ok("packages", "all fit each other")]
    # pip writes a line for each conflict, uv to standard error and after a heading.
    lines = [line for line in (checked.stdout or checked.stderr).splitlines() if " require" in line]
    if not lines:
        said = (checked.stdout or checked.stderr).strip().splitlines() or [f"it ended with status {checked.returncode}"]
        return [not_checked("packages", f"pip check: {said[-1].strip()}")]
    return [warning("packages", line.strip().rstrip("."), "Install versions that fit.") for line in lines[:MAX_LINES]]


def pipecat() -> Sequence[Finding]:
    """Whether it can be served. Imports it."""
    from pipecat_base.bot import compatibility

    try:
        if not compatibility.require_release():
            return [warning("pipecat-ai", "not installed", "Install it for a bot that uses it: pip install pipecat-ai")]
        verdict = compatibility.require_session_types(cloud=False)
    except PipecatUnusable as error:
        return [problem("pipecat-ai", error.message.rstrip(":."), f"{error.remedy[:1].upper()}{error.remedy[1:]}")]
    version = compatibility.version("pipecat-ai")
    return [ok("pipecat-ai", version), *(warning("pipecat-ai", text.rstrip("."), "") for text in verdict.warnings)]


def port(settings: Settings) -> Sequence[Finding]:
    """Whether the ports that the launcher listens on are free."""
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
        if _is_ours(host, number):
            return ok(check, f"{number} on {host} is in use, by a pipecat-base that runs already")
        return problem(check, error.message.rstrip("."), error.remedy)
    except OSError as error:  # a name that nobody knows, say
        return problem(check, f"Cannot listen on {host} port {number}: {error.strerror or error}", "Set PIPECAT_HOST.")
    return ok(check, f"{number} on {host} is free")


def _is_ours(host: str, number: int) -> bool:
    try:
        answer = web.request(f"{server.http_address(EVERYWHERE.get(host, host), number)}{CAPABILITIES}")
    except web.Unreachable:
        return False
    return answer.status == 200 and answer.is_json


def limits(settings: Settings) -> Sequence[Finding]:
    """Open files, memory and CPUs."""
    raise_descriptor_limit()  # as the launcher does
    if not (CGROUPS / "cgroup.controllers").exists():
        said = "control groups of version 1 are not read"
        return [open_files(settings, descriptor_limit()), not_checked("memory", said), not_checked("cpus", said)]
    return [
        open_files(settings, descriptor_limit()),
        memory(settings, lowest(OF_PROCESS, CGROUPS, "memory.max")),
        cpus(len(os.sched_getaffinity(0)), quota(OF_PROCESS, CGROUPS)),
    ]


def open_files(settings: Settings, descriptors: int) -> Finding:
    """Whether there are enough for MAX_SESSIONS connections and what sessions open themselves."""
    connections = settings.limits.max_connections or connections_for(descriptors)
    wanted = settings.sessions.max_sessions
    said = f"{descriptors} open files make {connections} connections"
    if wanted is None or wanted <= connections:
        return ok("open files", said)
    if settings.limits.max_connections is not None:
        return problem(
            "open files",
            f"PIPECAT_MAX_CONNECTIONS={connections} is less than MAX_SESSIONS={wanted}",
            "Raise the one or lower the other.",
        )
    return problem(
        "open files",
        f"{said}, fewer than MAX_SESSIONS={wanted}",
        f"Allow {3 * wanted} (ulimit -n {3 * wanted}, docker run --ulimit nofile={3 * wanted}), or lower MAX_SESSIONS.",
    )


def memory(settings: Settings, limit: float | None) -> Finding:
    """Whether the cgroup's limit is enough.

    Args:
        limit: Bytes; None for none.
    """
    if limit is None:
        return ok("memory", "no limit is set")
    said = f"the limit is {limit / 2**20:.0f} MiB"
    sessions, each = settings.sessions.max_sessions, settings.workers.max_memory_bytes
    if (
        sessions is not None
        and each is not None
        and settings.workers.isolation == "process"
        and sessions * each > limit
    ):
        return warning(
            "memory",
            f"{said}, less than MAX_SESSIONS={sessions} calls of MAX_SESSION_MEMORY_BYTES={each}",
            "Raise the container's limit, or lower one of the two.",
        )
    if limit < SMALL_MEMORY:
        return warning(
            "memory",
            f"{said}, which is little for pipecat",
            f"Give the container {SMALL_MEMORY // 2**20} MiB or more (docker run --memory 1g).",
        )
    return ok("memory", said)


def cpus(count: int, quota: float | None) -> Finding:
    """Whether one event loop has a whole CPU.

    Args:
        quota: CPUs that the cgroup may use; None for all.
    """
    if quota is not None and quota < 1:
        return warning(
            "cpus",
            f"the limit is {quota:g} CPU: calls stutter while the process is halted",
            "Allow one CPU or more (docker run --cpus 1), or set no limit.",
        )
    return ok("cpus", f"{count}" if quota is None or quota >= count else f"{quota:g} of {count}")


def folders(settings: Settings) -> Sequence[Finding]:
    """Whether the folders that the launcher writes to can be written."""
    named = {
        "PCC_LOG_DIR": settings.logs.folder,
        "PIPECAT_REPORTS_DIR": settings.telemetry.reports_dir,
        "PIPECAT_UPLOADS_FOLDER": settings.files.uploads_folder,
    }
    return [_folder(variable, Path(folder)) for variable, folder in named.items() if folder is not None]


def _folder(variable: str, folder: Path) -> Finding:
    check = f"folder {folder}"
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    if not there.is_dir():
        return problem(check, f"{there} is not a folder", f"Set {variable} to another one.")
    if not os.access(there, os.W_OK | os.X_OK):
        return problem(
            check, f"uid {os.getuid()} cannot write to {there}", f"Change its owner, or set {variable} to another one."
        )
    return ok(check, "can be written to" if there == folder.absolute() else "can be made")


def webrtc() -> str | None:
    """Why it is off, or None."""
    return None if installed.has(*installed.WEBRTC) else installed.NO_WEBRTC.rstrip(".")


def lowest(of_process: Path, cgroups: Path, name: str) -> float | None:
    """The lowest limit of this process's cgroup (version 2) and those above it; None without any (cgroups(7))."""
    values = [float(text.split()[0]) for text in _read(of_process, cgroups, name) if not text.startswith("max")]
    return min(values, default=None)


def quota(of_process: Path, cgroups: Path) -> float | None:
    """CPUs that its limit allows: microseconds in each period of so many."""
    pairs = [text.split() for text in _read(of_process, cgroups, "cpu.max") if not text.startswith("max")]
    return min((int(quota) / int(period) for quota, period in pairs), default=None)


def _read(of_process: Path, cgroups: Path, name: str) -> Iterator[str]:
    try:
        entries = of_process.read_text().splitlines()
    except OSError:
        return
    ours = next((entry.removeprefix("0::").strip("/") for entry in entries if entry.startswith("0::")), "")
    for folder in (cgroups / ours, *(cgroups / ours).parents):
        try:
            text = (folder / name).read_text().strip()
        except OSError:
            text = ""
        if text:
            yield text
        if folder == cgroups:
            return
