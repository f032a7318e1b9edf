"""Why the newest code of a bot is not served, and who may be told what."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from html import escape
from typing import Any

from pipecat_base.config.hosts import name_is_local
from pipecat_base.errors import Starting, StartupError

HERE = "{problem}"
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}
"""Of the page, which brings its own script and style: it asks no other origin, and no other origin may show it."""


@dataclass(frozen=True)
class StartupProblem:
    """Why the newest code is not what runs.

    Attributes:
        reason: For every caller: one line, which quotes nothing.
        bot_error: For whoever works on the bot: "code", "message", "remedy", "frames". None where others may ask.
        template: HTML for who opens ``/`` before any code could be served, with :data:`HERE` in it.
    """

    reason: str
    bot_error: dict[str, Any] | None = None
    template: str = ""

    def for_visitor(self, hosts: Iterable[str]) -> StartupProblem:
        """What one may know who takes us for ``hosts``: what was sent of ``access.local.HOST_HEADERS``.

        A name of somebody's may lead here (DNS rebinding), and its page would read what we answer.
        """
        return self if all(name_is_local(host) for host in hosts) else replace(self, bot_error=None)

    def as_status(self) -> dict[str, Any]:
        """Its fields in ``/status``."""
        return {"problem": self.reason, **({"mistake": self.bot_error} if self.bot_error is not None else {})}

    def as_page(self) -> bytes:
        """HTML, whose text is all quoted; what it shows is in it as JSON too, to be compared with the next."""
        if self.bot_error is None:
            shown = f"<h1>The bot cannot be served</h1><p>{escape(self.reason)}</p>"
        else:
            code, message, remedy = (escape(self.bot_error[name]) for name in ("code", "message", "remedy"))
            frames = "\n".join(map(escape, self.bot_error["frames"]))
            shown = f"<h1>{message}</h1><p>{remedy}</p>{f'<pre>{frames}</pre>' if frames else ''}"
            shown += f"<p class=detail>{code}</p>"
        data = escape(json.dumps(self.as_status()))
        section = f'<section class="card mistake" role="alert" data-problem="{data}">{shown}</section>'
        return self.template.replace(HERE, section).encode(errors="backslashreplace")

    def as_answer(self) -> dict[str, Any]:
        """The body of a 503 to ``/status``: a refusal like any other, with the same fields."""
        return {**Starting(self.reason).body(), "status": "starting", **self.as_status()}


def mistake_of(error: StartupError) -> dict[str, Any]:
    """As :attr:`Problem.mistake` has it."""
    return {"code": error.code, "message": error.message, "remedy": error.remedy, "frames": list(error.frames)}
