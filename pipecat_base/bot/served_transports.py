"""Transports that the bot can serve, read from its sources: pipecat's classes, and dicts for ``create_transport``."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from pipecat_base.bot import installed, sources
from pipecat_base.bot.functions import Bot
from pipecat_base.config.settings import START_TRANSPORTS, GatewaySettings, ProviderSettings

DEFAULT_TRANSPORT = "webrtc"  # as in pipecat's runner
STREAMS = START_TRANSPORTS[START_TRANSPORTS.index("websocket") :]
OTHERS = ("eval", "vonage", "sip")  # of pipecat, which POST /start does not start
# By a part of a class's name, in lower case: SmallWebRTCRunnerArguments, DailyTransport
WORDS = {
    "webrtc": ("webrtc",),
    "daily": ("daily",),
    "livekit": ("livekit",),
    "moq": ("moq",),
    "websocket": STREAMS,
}
ENDS = ("RunnerArguments", "SessionArguments", "Transport")  # not WebSocketDisconnect, nor DailyParams


def warnings(bot: Bot, gateway: GatewaySettings, providers: ProviderSettings) -> Iterator[str]:
    """A line if the bot cannot serve the transport of a ``POST /start`` that names none."""
    default = gateway.default_transport or DEFAULT_TRANSPORT
    served = _served(bot.project)
    if served and default not in served:
        known = [name for name in START_TRANSPORTS if name in served]
        yield (
            f"{bot.file.name} serves {', '.join(known)}, but a POST /start that names no transport means {default}; "
            f"set PIPECAT_DEFAULT_TRANSPORT={known[0]} (pipecat-base dev -t {known[0]})"
        )
    elif served or gateway.default_transport is not None:
        missing = _missing(default, providers)
        if missing is not None:
            yield f"A POST /start that names no transport means {default}, which cannot be used here: {missing}"


def _missing(transport: str, providers: ProviderSettings) -> str | None:
    if not installed.has(*installed.OF_TRANSPORTS.get(transport, ())):
        return f"pip install pipecat-ai[{transport}]"
    if transport == "livekit" and None in (
        providers.livekit_url,
        providers.livekit_api_key,
        providers.livekit_api_secret,
    ):
        return "set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
    return None


def _served(project: str) -> set[str]:
    """Empty if the sources name no transport."""
    found: set[str] = set()
    for file in sources.sources(project):
        try:
            tree = ast.parse(Path(file).read_bytes())
        except (OSError, SyntaxError, ValueError):  # an extension module, or a file that has changed since
            continue
        for node in ast.walk(tree):
            found.update(_of(node))
    return found


def _of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Dict):
        keys = {key.value if isinstance(key, ast.Constant) else None for key in node.keys}
        if keys <= {*START_TRANSPORTS, *OTHERS}:
            yield from (name for name in START_TRANSPORTS if name in keys)
    elif isinstance(node, ast.Name | ast.Attribute):
        yield from _of_class(node.id if isinstance(node, ast.Name) else node.attr)


def _of_class(name: str) -> Iterator[str]:
    if name.endswith(ENDS):
        for word, transports in WORDS.items():
            if word in name.lower():
                yield from transports
