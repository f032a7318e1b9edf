"""``pipecat-base doctor``: problems of this machine, and how to fix them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait

from pipecat_base.bot import installed
from pipecat_base.cli import output
from pipecat_base.cli.doctor import checks
from pipecat_base.cli.doctor.checks import Check, Finding, FindingStatus, not_checked, ok, problem, warning
from pipecat_base.config import environment
from pipecat_base.config.env_file import EnvFile
from pipecat_base.config.reference import table
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid

ICE_LIST_TIMEOUT_SECONDS = 3.0
CHECKS_TIMEOUT_SECONDS = 6.0

Load = Callable[[Mapping[str, str], EnvFile], Settings]


def main(env_file: EnvFile, load: Load, *, site: str | None, prints_json: bool) -> int:
    """Print the findings; the exit status is 1 if something does not work.

    Args:
        load: Makes settings from variables and the command line. Raises SettingsInvalid.
        site: The folder of the launcher's packages, unless they are in the bot's environment.
    """
    with output.progress("Checking"):
        findings = list(examine(env_file, load, site))
    print(as_json(findings) if prints_json else as_text(findings))
    return int(_has_problem(findings))


def examine(env_file: EnvFile, load: Load, site: str | None) -> Iterator[Finding]:
    settings, findings = _settings(env_file, load)
    yield from findings
    yield from checks.python()
    yield from checks.pipecat()
    ice_checks: list[Check] = []
    if installed.has(*installed.WEBRTC):
        from pipecat_base.cli.doctor import ice  # here, outside the time limit: it imports pipecat

        def list_ice_servers() -> Sequence[Finding]:
            findings, found = ice.list_servers(settings)
            ice_checks.extend(found)
            return findings

        yield from run([("ice servers", list_ice_servers)], ICE_LIST_TIMEOUT_SECONDS)
    else:
        yield not_checked("stun", installed.NO_WEBRTC.rstrip("."))
    every_check: list[Check] = [
        ("packages", lambda: checks.packages(settings, site)),
        ("port", lambda: checks.ports(settings)),
        ("limits", lambda: checks.limits(settings)),
        ("folders", lambda: checks.folders(settings)),
        ("daily", lambda: checks.daily(settings)),
        ("twilio", lambda: checks.twilio(environment.read())),
        ("whatsapp", lambda: checks.whatsapp(settings)),
        ("clock", lambda: checks.clock(settings.providers.daily_api_url)),
        *ice_checks,
    ]
    yield from run(every_check, CHECKS_TIMEOUT_SECONDS)


def run(checks: Sequence[Check], timeout: float) -> Iterator[Finding]:
    """Run checks at once; a check that takes longer is given up, and its thread left behind."""
    pool = ThreadPoolExecutor(len(checks))
    futures = [pool.submit(check) for _, check in checks]
    done, _ = wait(futures, timeout)
    pool.shutdown(wait=False)
    for (name, _), future in zip(checks, futures, strict=True):
        if future not in done:
            yield not_checked(name, f"it took longer than {timeout:g} s")
        elif (error := future.exception()) is not None:
            # Not its text: that may hold a key.
            yield not_checked(name, f"an unexpected {type(error).__name__}")
        else:
            yield from future.result()


def as_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.check) for finding in findings)
    lines = [f"{f.status:<11}  {f.check:<{width}}  {f.text_and_fix}" for f in findings]
    problems, warnings = (_count(findings, status) for status in (FindingStatus.PROBLEM, FindingStatus.WARNING))
    return "\n".join([*lines, "", f"{problems}, {warnings}"])


def as_json(findings: Sequence[Finding]) -> str:
    listed = [{"check": f.check, "status": f.status, "text": f.text, "fix": f.fix} for f in findings]
    return json.dumps({"ok": not _has_problem(findings), "checks": listed}, indent=2, ensure_ascii=False)


def _has_problem(findings: Sequence[Finding]) -> bool:
    return any(finding.status is FindingStatus.PROBLEM for finding in findings)


def _count(findings: Sequence[Finding], status: FindingStatus) -> str:
    count = sum(finding.status is status for finding in findings)
    return f"{count or 'no'} {status}{'' if count == 1 else 's'}"


def _settings(env_file: EnvFile, load: Load) -> tuple[Settings, list[Finding]]:
    """Load the usable settings: one invalid variable must not hide every other problem."""
    findings = []
    try:
        env_file.read()
    except SettingsInvalid as error:
        findings += [problem(".env", line, "Correct it.") for line in error.lines]
    if env_file.names:
        findings.append(ok(".env", f"sets {', '.join(sorted(env_file.names))}"))
    variables = environment.read()
    try:
        settings = load(variables, env_file)
    except SettingsInvalid as error:
        findings += [problem("settings", line, "Correct it.") for line in error.lines]
        usable: dict[str, str] = {}
        for row in table():
            with contextlib.suppress(SettingsInvalid):
                variable = {row.variable: variables.get(row.variable, "")}
                Settings.load(variable)
                usable |= variable
        try:
            settings = load(usable, env_file)
        except SettingsInvalid:  # an option of the command line is invalid
            settings = Settings.load(usable)
    findings += [warning("settings", line, "Correct it.") for line in settings.warnings]
    return settings, findings
