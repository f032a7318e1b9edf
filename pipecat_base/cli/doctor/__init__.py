"""``pipecat-base doctor``: what is wrong on this machine, and how to fix it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from pipecat_base.cli import output
from pipecat_base.cli.doctor import ice, machine, rounds, services
from pipecat_base.cli.doctor.findings import Finding, as_json, as_text, has_problem, not_checked, ok, problem, warning
from pipecat_base.cli.doctor.rounds import Check
from pipecat_base.cli.doctor.services import ServiceAddresses
from pipecat_base.config import environment
from pipecat_base.config.env_file import EnvFile
from pipecat_base.config.reference import table
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid

LISTING = 3.0
"""Seconds for the list of ICE servers, where one must be asked for it."""
LOOKING = 6.0
"""Seconds for all other checks at once."""

Load = Callable[[Mapping[str, str], EnvFile], Settings]


def main(env_file: EnvFile, load: Load, *, site: str | None, json: bool) -> int:
    """Print what was found; 1 where something does not work.

    Args:
        load: Makes settings of variables and the command line. Raises SettingsInvalid.
        site: The folder of the launcher's packages, where they are not in the bot's environment.
    """
    with output.progress("Looking"):
        findings = list(examine(env_file, load, site=site))
    print(as_json(findings) if json else as_text(findings))
    return int(has_problem(findings))


def examine(
    env_file: EnvFile, load: Load, *, site: str | None = None, addresses: ServiceAddresses | None = None
) -> Iterator[Finding]:
    """Everything. Pipecat and aiortc are imported, and need no network; what does has a bound."""
    settings, findings = _settings(env_file, load)
    yield from findings
    yield from machine.python()
    yield from machine.pipecat()
    about_list, servers = _ice_servers(settings)
    yield from about_list
    yield from rounds.run([*_checks(settings, site, addresses or ServiceAddresses()), *servers], LOOKING)


def _checks(settings: Settings, site: str | None, addresses: ServiceAddresses) -> Sequence[Check]:
    return (
        Check("packages", partial(machine.packages, settings, site)),
        Check("port", partial(machine.port, settings)),
        Check("limits", partial(machine.limits, settings)),
        Check("folders", partial(machine.folders, settings)),
        Check("daily", partial(services.daily, settings)),
        Check("twilio", partial(services.twilio, environment.read(), addresses.twilio)),
        Check("whatsapp", partial(services.whatsapp, settings, addresses.graph)),
        Check("clock", partial(services.clock, (settings.providers.daily_api_url,))),
    )


def _settings(env_file: EnvFile, load: Load) -> tuple[Settings, list[Finding]]:
    """Those that can be used, with what is wrong with the others: one wrong variable hides nothing else."""
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
        settings = _rest(variables, env_file, load)
    findings += [warning("settings", line, "Correct it.") for line in settings.warnings]
    return settings, findings


def _rest(variables: Mapping[str, str], env_file: EnvFile, load: Load) -> Settings:
    usable = dict(_usable(variables))
    try:
        return load(usable, env_file)
    except SettingsInvalid:  # it is an option that is wrong
        return Settings.load(usable)


def _usable(variables: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for row in table():
        name, value = row.variable, variables.get(row.variable, "")
        try:
            Settings.load({name: value})
        except SettingsInvalid:
            continue
        yield name, value


def _ice_servers(settings: Settings) -> tuple[Sequence[Finding], Sequence[Check]]:
    why_not = machine.webrtc()
    if why_not is not None:
        return [not_checked("stun", why_not)], ()
    from pipecat_base.bot.webrtc import ice as _imported  # noqa: F401  (takes seconds, and no network)

    checks: list[Check] = []

    def look() -> Sequence[Finding]:
        findings, found = ice.listed(settings)
        checks.extend(found)
        return findings

    return rounds.run([Check("ice servers", look)], LISTING), checks
