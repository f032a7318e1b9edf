"""``pipecat-base check``: import and validate the bot without running it, and list its features."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from pipecat_base.bot.packages import Packages, unused
from pipecat_base.cli import output
from pipecat_base.config.env_file import EnvFile
from pipecat_base.config.settings import Settings
from pipecat_base.errors import StartupError
from pipecat_base.server.paths import CAPABILITIES


def main(load: Callable[[], Settings], env_file: EnvFile | None, *, site: str | None, prints_json: bool) -> int:
    try:
        packages = Packages(site, sys.path)
        if env_file is not None:
            with packages.explaining():
                env_file.read()
        settings = load()
        packages.check(unused=unused(settings.gateway, settings.files))
        with packages.explaining():
            from pipecat_base.api import capabilities
            from pipecat_base.bot import mounted, served_transports, sources
            from pipecat_base.bot.arguments import load_types
            from pipecat_base.bot.features import FeatureManager
            from pipecat_base.bot.imported import import_bot
            from pipecat_base.launcher import launcher  # noqa: F401  (every module of it must be importable)
            from pipecat_base.logs.logger import Logs
        logs = Logs("WARNING")
        logs.configure()
        # The bot's prints must not get between the lines of a JSON result.
        with _stdout_to_stderr() as stdout, output.progress(f"Importing {settings.server.bot_file}"):

            def give_up(error: StartupError) -> NoReturn:
                os.dup2(stdout, 1)
                print(
                    _as_json(error) if prints_json else error.report(), file=sys.stdout if prints_json else sys.stderr
                )
                output.flush()
                os._exit(error.exit_status)

            with mounted.absent_modules_accepted() as absent:
                imported = import_bot(settings, packages, logs, give_up)
            manager = FeatureManager(
                settings,
                has_file_storage=imported.bot.create_file_storage is not None,
                types=lambda: load_types(cloud=imported.wants_cloud),
            )
            with logs.unchanged(), packages.explaining():
                features = manager.features(verify=True)
                document = capabilities.document(manager.capabilities())
    except StartupError as error:
        if not prints_json:
            raise
        print(_as_json(error))
        return error.exit_status
    bot = imported.bot
    found = served_transports.warnings(bot, settings.gateway, settings.providers)
    warnings = [*settings.warnings, *imported.warnings, *found]
    notes = mounted.notes(absent) if sources.mentions(bot.project, mounted.IN_SOURCES) else []
    if prints_json:
        result = {
            "ok": True,
            "bot": {"file": str(bot.file), "hooks": bot.hooks},
            "features": [
                {"name": f.name, "status": f.status.value, "required": f.required, "reason": f.reason} for f in features
            ],
            "warnings": warnings,
            "notes": notes,
            "capabilities": json.loads(document),
        }
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return 0
    hooks = f" (hooks: {', '.join(bot.hooks)})" if bot.hooks else ""
    print(f"{bot.name} is fine{hooks}")
    for warning in warnings:
        print(f"Warning: {warning}")
    for note in notes:
        print(f"Note: {note}")
    for feature in features:
        print(feature.line())
    print(f"{CAPABILITIES}: {document.decode()}")
    return 0


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[int]:
    """Yields a descriptor of the real standard output."""
    # The descriptor, not sys.stdout: C code and child processes print too.
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        yield saved
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


def _as_json(error: StartupError) -> str:
    described = {
        "code": error.code,
        "message": str(error).strip(),
        "frames": list(error.frames),
        "exit_status": error.exit_status,
    }
    return json.dumps({"ok": False, "error": described}, indent=2, ensure_ascii=False)
