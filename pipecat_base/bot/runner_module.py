"""Replaces what pipecat's runner sets for a bot: ``ENV=local``, the address that it listens on, its ``app``."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pipecat_base.bot.packages import BOTS_MODULE
from pipecat_base.config import environment
from pipecat_base.config.settings import ServerSettings

MODULE = "pipecat.runner.run"
LOCAL = {"ENV": "local"}
FASTAPIS_OWN = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")


def set_local() -> list[str]:
    """Set ENV for ``dev``, also over another value, as the runner does; that is worth a warning."""
    before = environment.read().get("ENV", "").strip()
    environment.add(LOCAL)
    if before in ("", "local"):
        return []
    return [f"ENV: dev sets it to local, as pipecat's runner does, in place of {before}"]


def tell_address(server: ServerSettings) -> None:
    """Let the bot's ``runner_host()`` and ``runner_port()`` return what the launcher listens on."""
    module = sys.modules.get(MODULE)
    if module is not None:
        vars(module).update(RUNNER_HOST=server.host, RUNNER_PORT=server.port)


def warnings() -> Iterator[str]:
    app = getattr(sys.modules.get(MODULE), "app", None)
    paths = [getattr(route, "path", "") for route in getattr(app, "routes", ())]
    own = ", ".join(path for path in paths if path not in FASTAPIS_OWN)
    if own:
        yield f"{own}: not served, as pipecat's runner does not run here; write `from {BOTS_MODULE} import app`"
