"""Checks of STUN and TURN servers over this machine's network, as in a call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipecat_base.bot.webrtc.ice import IceServers
from pipecat_base.bot.webrtc.probe import ProbeFailed, is_probed, probe
from pipecat_base.cli.doctor.checks import Check, Finding, not_checked, ok, problem, warning
from pipecat_base.config.settings import Settings
from pipecat_base.logs.logger import logger


def list_servers(settings: Settings) -> tuple[list[Finding], list[Check]]:
    """Problems of the list of servers, and a check for each server in it. May fetch ICE_CONFIG_URL."""
    warnings: list[str] = []
    sink = logger.add(lambda line: warnings.append(line.record["message"]), level="WARNING", format="{message}")
    try:
        servers = IceServers(settings.webrtc.ice_servers, settings.webrtc.ice_config_url)
        found = asyncio.run(_fetch(servers))
    finally:
        logger.remove(sink)
    findings = [_list_problem(text) for text in warnings]
    if not found and not warnings:
        findings.append(warning("ice servers", "none: only callers in the same network connect", "List some."))
    is_chosen = settings.webrtc.ice_servers is not None or (settings.webrtc.ice_config_url is not None and not warnings)
    timeout = settings.webrtc.ice_timeout
    return findings, [_check(server, timeout, failure=problem if is_chosen else warning) for server in found]


def _list_problem(text: str) -> Finding:
    # A warning that begins with the variable's name is about the whole list, others are about an entry.
    finding = problem if text.startswith(("PIPECAT_ICE_SERVERS", "ICE_CONFIG_URL")) else warning
    return finding("ice servers", text.rstrip("."), "Correct PIPECAT_ICE_SERVERS or ICE_CONFIG_URL, whichever is set.")


async def _fetch(servers: IceServers) -> list[Any]:
    if (fetching := servers.prefetch()) is not None:
        await asyncio.wait({fetching})
    return await servers.get()


def _check(server: Any, timeout: float, *, failure: Callable[[str, str, str], Finding]) -> Check:
    name = server.urls[:4]  # "stun" or "turn"
    if not is_probed(server):
        return name, lambda: [not_checked(name, f"{server.urls}: aiortc speaks no {_kind(server.urls)}")]
    return name, partial(examine, server, timeout, partial(failure if name == "stun" else problem, name))


def _kind(url: str) -> str:
    return "STUN over TLS" if url.startswith("stuns:") else "TURN over that transport"


def examine(server: Any, timeout: float, failure: Callable[[str, str], Finding]) -> Sequence[Finding]:
    """Ask a server; only one from the settings must answer."""
    try:
        return [ok(server.urls[:4], probe(server, timeout))]
    except ProbeFailed as failed:
        return [failure(failed.text, failed.fix)]
