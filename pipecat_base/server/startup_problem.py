"""Reason why the newest code of a bot is not served, and who may see which part of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from pipecat_base.config.hosts import name_is_local
from pipecat_base.errors import Starting, StartupError
from pipecat_base.server.page_headers import page_headers

PLACEHOLDER = "{problem}"
PAGE_HEADERS = page_headers("script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'")


@dataclass(frozen=True)
class StartupProblem:
    """Reason why the newest code is not running.

    Attributes:
        reason: For every caller: one line, without quotes from the code.
        bot_error: For the bot's developer: "code", "message", "remedy", "frames". None where others may see it.
    """

    reason: str
    bot_error: dict[str, Any] | None = None
    template: str = ""

    def for_visitor(self, hosts: Iterable[str]) -> StartupProblem:
        """Leaves out ``bot_error`` for foreign names, which may resolve to this machine (DNS rebinding)."""
        return self if all(name_is_local(host) for host in hosts) else replace(self, bot_error=None)

    def as_status(self) -> dict[str, Any]:
        return {"problem": self.reason, **({"mistake": self.bot_error} if self.bot_error is not None else {})}

    def as_page(self) -> bytes:
        """HTML with all text escaped, and the data as JSON, so that the page can detect a change."""
        if self.bot_error is None:
            shown = f"<h1>The bot cannot be served</h1><p>{escape(self.reason)}</p>"
        else:
            code, message, remedy = (escape(self.bot_error[name]) for name in ("code", "message", "remedy"))
            frames = "\n".join(map(escape, self.bot_error["frames"]))
            shown = f"<h1>{message}</h1><p>{remedy}</p>{f'<pre>{frames}</pre>' if frames else ''}"
            shown += f"<p class=detail>{code}</p>"
        data = escape(json.dumps(self.as_status()))
        section = f'<section class="card mistake" role="alert" data-problem="{data}">{shown}</section>'
        return self.template.replace(PLACEHOLDER, section).encode(errors="backslashreplace")

    def as_answer(self) -> dict[str, Any]:
        return {**Starting(self.reason).body(), "status": "starting", **self.as_status()}


def bot_error_of(error: StartupError) -> dict[str, Any]:
    return {"code": error.code, "message": error.message, "remedy": error.remedy, "frames": list(error.frames)}
