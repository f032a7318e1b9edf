"""STUN and TURN servers of peer connections.

They are those of ``PIPECAT_ICE_SERVERS``, else of ``ICE_CONFIG_URL``, else a public STUN server. The URL is fetched
early and again in the background; while that fails, the last good response is used. No offer waits long for it, nor
for a server that does not answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiortc.rtcicetransport import parse_stun_turn_uri
from pipecat.transports.smallwebrtc.connection import IceServer

from pipecat_base.bot.webrtc.server_watch import AnsweringServers
from pipecat_base.config.settings import WebRTCSettings
from pipecat_base.http_client import bounded_session
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import PUBLIC_STUN

REFRESH_SECONDS = 300.0  # TURN credentials live for hours, an address may change sooner
FETCH_TIMEOUT_SECONDS = 10.0
RETRY_SECONDS = 10.0

Fetch = Callable[[str], Any]


class IceServers:
    """Fetches and keeps the list.

    Args:
        default_url: Used without ``url``; a failure is logged at DEBUG only.
        given: Servers that another process has found, which are used before all others.
        timeout: How long an offer waits for the first fetch, and for the first probe of each server.
        answering: Probes the servers, unless another process does.
    """

    def __init__(
        self,
        configured: str | None,
        url: str | None,
        *,
        default_url: str | None = None,
        given: Callable[[], list[dict[str, Any]] | None] = lambda: None,
        fetch: Fetch | None = None,
        timeout: float = WebRTCSettings.ice_timeout,
        answering: AnsweringServers | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = (url or default_url) if configured is None else None
        self._is_default = url is None
        self._given = given
        self._fetch = fetch or _fetch
        self._timeout = timeout
        self._answering = answering
        self._clock = clock
        self._good_until = 0.0
        self._fetching: asyncio.Task[None] | None = None
        self._failed = False
        self._fetched_once = False
        self._servers = _configured(configured) if configured else [IceServer(urls=PUBLIC_STUN)]

    async def get(self) -> list[IceServer]:
        """All servers, for clients; waits up to ``timeout`` for the first fetch."""
        given = self._given()
        if given is not None:
            return [IceServer(**server) for server in given]
        if self._url is not None and self._clock() >= self._good_until:
            fetching = self.prefetch()
            if not self._fetched_once and fetching is not None:
                await asyncio.wait({fetching}, timeout=self._timeout)
                # Only the first offer waits for the first fetch.
                self._fetched_once = True
        return self._servers

    async def answering(self) -> list[IceServer]:
        """Servers for a connection of our own, without silent ones."""
        end = time.monotonic() + self._timeout
        servers = await self.get()
        if self._answering is None or self._given() is not None:
            return servers
        return await self._answering.choose(servers, timeout=max(0, end - time.monotonic()))

    def prefetch(self) -> asyncio.Task[None] | None:
        """Start a fetch, unless one is running or not needed, and probes."""
        self._probe()
        if self._url is None or self._clock() < self._good_until:
            return None
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(self._refresh(self._url))
        return self._fetching

    def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
        if self._answering is not None:
            self._answering.close()

    def _probe(self) -> None:
        # Before the first fetch the public server only stands in.
        if self._answering is not None and (self._url is None or self._good_until > 0):
            self._answering.watch(self._servers)

    @property
    def _name(self) -> str:
        return f"{self._url} (the default of ICE_CONFIG_URL)" if self._is_default else "ICE_CONFIG_URL"

    async def _refresh(self, url: str) -> None:
        try:
            content = await asyncio.wait_for(self._fetch(url), FETCH_TIMEOUT_SECONDS)
            servers = parse(_listed(content))
            if not servers:
                raise ValueError("it lists no usable server")
        except Exception as error:
            self._good_until = self._clock() + RETRY_SECONDS
            if not self._failed:
                reason = " ".join(str(error).split()) or type(error).__name__
                reason = reason.replace(url, "the URL")  # it may hold a key
                if (status := getattr(error, "status", None)) is not None:  # aiohttp's error, whose text has the URL
                    reason = f"status {status}"
                level = "DEBUG" if self._is_default else "WARNING"
                logger.log(level, f"{self._name} did not give ICE servers ({reason}); serving the last good ones")
            self._failed = True
        else:
            if self._failed:
                logger.info(f"{self._name} gives ICE servers again")
            self._servers, self._failed = servers, False
            self._good_until = self._clock() + REFRESH_SECONDS
            self._probe()
        finally:
            self._fetched_once = True


def parse(entries: list[Any]) -> list[IceServer]:
    """Usable servers, the best first: aiortc uses only the first STUN and the first TURN URL."""
    servers: list[IceServer] = []
    for entry in entries:
        urls, username, credential = _fields(entry)
        good = [url for url in map(_usable, urls) if url]
        if len(good) < len(urls) or not urls:
            logger.warning("An ICE server was dropped: its urls are not all stun: or turn: addresses")
        servers += [IceServer(urls=url, username=username, credential=credential) for url in good]
    return sorted(servers, key=lambda server: _rank(server.urls))


def _usable(url: Any) -> str | None:
    """The URL, if aiortc accepts it (RFC 7064, 7065); with any other it would fail every offer."""
    if not isinstance(url, str):
        return None
    scheme, colon, rest = url.strip().partition(":")
    normal = scheme.lower() + colon + rest
    try:
        parse_stun_turn_uri(normal)
    except ValueError:
        return None
    return normal


def _rank(url: str) -> int:
    lowered = url.lower()  # TURN over UDP is faster than over TCP or TLS
    if lowered.startswith("turns:"):
        return 2
    return 1 if lowered.startswith("turn:") and "transport=tcp" in lowered else 0


def _fields(entry: Any) -> tuple[list[Any], str | None, str | None]:
    if isinstance(entry, str):
        return [entry], None, None
    if not isinstance(entry, dict):
        return [], None, None
    urls = entry.get("urls")
    texts = [value if isinstance(value, str) else None for value in (entry.get("username"), entry.get("credential"))]
    return (urls if isinstance(urls, list) else [urls]), texts[0], texts[1]


def _configured(value: str) -> list[IceServer]:
    """Read PIPECAT_ICE_SERVERS: a comma list of URLs, or JSON: an object, or an array of objects and URLs."""
    text = value.strip()
    if text[:1] not in "[{":
        return parse([part.strip() for part in text.split(",") if part.strip()])
    try:
        content = json.loads(text)
    except ValueError:
        logger.warning("PIPECAT_ICE_SERVERS is not JSON; no ICE servers are used")
        return []
    return parse(content if isinstance(content, list) else [content])


def _listed(content: Any) -> list[Any]:
    config = content.get("iceConfig") if isinstance(content, dict) else None
    servers = config.get("iceServers") if isinstance(config, dict) else None
    if not isinstance(servers, list):
        raise ValueError("it has no iceConfig.iceServers")
    return servers


async def _fetch(url: str) -> Any:
    async with bounded_session() as session, session.get(url) as response:
        response.raise_for_status()
        return json.loads(await response.read())  # with or without a BOM, whatever its type
