"""Import the bot and check it against the installed packages."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from pipecat_base.bot import (
    advisories,
    compatibility,
    dev_credentials,
    functions,
    loader,
    runner_module,
    served_transports,
    sources,
)
from pipecat_base.bot.arguments import CLOUD
from pipecat_base.bot.functions import Bot
from pipecat_base.bot.import_watch import GiveUp, watching
from pipecat_base.bot.memory import collecting_seldom
from pipecat_base.bot.packages import BOTS_MODULE, UPLOADS, Packages, unused
from pipecat_base.config import environment
from pipecat_base.config.settings import Settings
from pipecat_base.errors import StartupError
from pipecat_base.logs.logger import Logs

WITHOUT_PIPECAT = (
    "pipecat-ai is not installed: sessions get objects with the fields of its arguments, and none of its transports can"
    " be used"
)
# Does not match the module with the web app, pipecatcloud_system.
CLOUD_IN_SOURCES = rb"\bpipecatcloud\b"
PIPECAT_IN_SOURCES = rb"\bpipecat(cloud)?\b"


@dataclass(frozen=True)
class Imported:
    """A bot that can be served; ``webrtc_problem`` tells why WebRTC, though installed, cannot be used."""

    bot: Bot
    wants_cloud: bool
    warnings: tuple[str, ...]
    webrtc_problem: str | None


@collecting_seldom()
def import_bot(
    settings: Settings, packages: Packages, logs: Logs, give_up: GiveUp, *, is_dev: bool = False
) -> Imported:
    """Import and validate the bot. pipecat, a quarter of a second, is imported only if its sources mention it."""
    if settings.telemetry.observers:
        environment.append_setup_file(os.path.join(os.path.dirname(__file__), "observers.py"))
    has_pipecat = compatibility.require_release()
    replaced: list[str] = []
    if is_dev:
        dev_credentials.provide()
        replaced += runner_module.set_local()
    try:
        file = Path(settings.server.bot_file).absolute()
        with logs.guard(), packages.explaining(), watching(file, settings.start.import_timeout, give_up):
            bot = loader.load(settings.server.bot_file)
    except StartupError as error:
        compatibility.raise_if_pipecat_is_broken(error)
        raise
    if is_dev:
        runner_module.set_local()  # again: the bot may have read .env
    runner_module.tell_address(settings.server)
    uses_pipecat = has_pipecat and ("pipecat" in sys.modules or sources.mentions(bot.project, PIPECAT_IN_SOURCES))
    if is_dev and uses_pipecat:
        with logs.unchanged():
            dev_credentials.suppress_hang_ups()
    has_app, has_file_storage = BOTS_MODULE in sys.modules, bot.create_file_storage is not None
    not_needed = unused(
        settings.gateway, settings.files, has_app=has_app, has_file_storage=has_file_storage, is_dev=is_dev
    )
    packages.check(unused=not_needed)
    # The bot's own routes may parse forms.
    not_imported = not_needed - {UPLOADS} if has_app else not_needed
    outdated = advisories.warnings(packages.versions, unused=not_imported)
    wants_cloud = sources.mentions(bot.project, CLOUD_IN_SOURCES) or CLOUD in sys.modules
    check = compatibility.PipecatCheck(() if has_pipecat else (WITHOUT_PIPECAT,))
    if uses_pipecat:
        try:
            with logs.unchanged():
                check = compatibility.require_session_types(cloud=wants_cloud)
        except StartupError:
            raise
        except Exception as error:  # a bug in the check
            check = compatibility.PipecatCheck((f"The pipecat-ai check did not run ({type(error).__name__}: {error})",))
    misused = (*functions.misnamed(bot), *functions.nothing_awaitable(bot), *runner_module.warnings())
    warnings = (*replaced, *outdated, *check.warnings, *misused)
    if is_dev:
        warnings += tuple(served_transports.warnings(bot, settings.gateway, settings.providers))
    return Imported(bot, wants_cloud, warnings, check.webrtc_problem)
