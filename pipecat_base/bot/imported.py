"""A bot that is imported, and checked against what is installed."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from pipecat_base.bot import advisories, compatibility, dev_credentials, loader
from pipecat_base.bot.argument_types import CLOUD
from pipecat_base.bot.loader import Bot
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
CLOUD_IN_SOURCES = rb"\bpipecatcloud\b"
"""Not the module with the web app, pipecatcloud_system."""
PIPECAT_IN_SOURCES = rb"\bpipecat(cloud)?\b"


@dataclass(frozen=True)
class Imported:
    """A bot that can be served with what is installed.

    Attributes:
        wants_cloud: Whether pipecatcloud is imported or its sources mention it.
        warnings: What its author should know of what is installed, and of functions that look like hooks.
        webrtc_problem: Why its sessions cannot come over WebRTC although it is installed, or None.
    """

    bot: Bot
    wants_cloud: bool
    warnings: tuple[str, ...]
    webrtc_problem: str | None


@collecting_seldom()
def import_bot(settings: Settings, packages: Packages, logs: Logs, *, is_dev: bool = False) -> Imported:
    """Import and validate the bot, and build what its sessions will get.

    A bot whose sources do not mention pipecat waits for no import of it: a quarter of a second.

    Raises:
        StartupError: it cannot be served.
    """
    if settings.telemetry.observers:
        environment.append_setup_file(os.path.join(os.path.dirname(__file__), "observers.py"))
    has_pipecat = compatibility.require_release()
    if is_dev:
        dev_credentials.provide()
    try:
        with logs.guard(), packages.explaining():
            bot = loader.load(settings.server.bot_file)
    except StartupError as error:
        compatibility.require_import(error)
        raise
    uses_pipecat = has_pipecat and ("pipecat" in sys.modules or loader.mentions(bot.project, PIPECAT_IN_SOURCES))
    if is_dev and uses_pipecat:
        with logs.unchanged():
            dev_credentials.keep_in_house()
    has_app, has_file_storage = BOTS_MODULE in sys.modules, bot.create_file_storage is not None
    not_needed = unused(settings, has_app=has_app, has_file_storage=has_file_storage, is_dev=is_dev)
    packages.check(unused=not_needed)
    # Routes of the bot's own may parse forms.
    not_imported = not_needed - {UPLOADS} if has_app else not_needed
    outdated = advisories.warnings(packages.versions, unused=not_imported)
    wants_cloud = loader.mentions(bot.project, CLOUD_IN_SOURCES) or CLOUD in sys.modules
    verdict = compatibility.Verdict(() if has_pipecat else (WITHOUT_PIPECAT,))
    if uses_pipecat:
        try:
            with logs.unchanged():
                verdict = compatibility.require_session_types(cloud=wants_cloud)
        except StartupError:
            raise
        except Exception as error:  # a fault of the check's own
            verdict = compatibility.Verdict((f"The pipecat-ai check did not run ({type(error).__name__}: {error})",))
    warnings = (*outdated, *verdict.warnings, *loader.misnamed(bot))
    return Imported(bot, wants_cloud, warnings, verdict.webrtc_problem)
