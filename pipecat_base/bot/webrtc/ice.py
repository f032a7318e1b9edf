"""Which STUN and TURN servers a peer connection uses.

``PIPECAT_ICE_SERVERS``, else what ``ICE_CONFIG_URL`` answers, else a public STUN server. The URL is fetched before it
is needed and again in the background; while it fails the last good answer serves, and no offer ever waits long for it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiortc.rtcicetransport import parse_stun_turn_uri
from pipecat.transports.smallwebrtc.connection import IceServer

from pipecat_base.http_client import bounded_session
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.transports import PUBLIC_STUN

LIFETIME = 300.0
"""Seconds that an answer of the URL is good for: TURN credentials live for hours, an address may change sooner."""
FETCH_TIMEOUT = 10.0
"""Seconds for one fetch, in the background."""
LONGEST_WAIT = 2.0
"""Seconds that an offer waits for the very first answer."""
RETRY = 10.0
"""Seconds after a failed fetch before the next one."""

Fetch = Callable[[str], Any]


class IceServers:
    """Owns the list and its refreshing.

    Args:
        configured: The value of PIPECAT_ICE_SERVERS, or None.
        url: ICE_CONFIG_URL, or None.
        default_url: Tried without it. That nobody answers there is no news.
        given: Gives those that another process has found, which come before all; None without any.
        fetch: Awaited with the URL; the JSON that it answers.
        clock: Seconds.
    """

    def __init__(
        self,
        configured: str | None,
        url: str | None,
        *,
        default_url: str | None = None,
        given: Callable[[], list[dict[str, Any]] | None] = lambda: None,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = (url or default_url) if configured is None else None
        self._is_default = url is None
        self._given = given
        self._fetch = fetch or _fetch
        self._clock = clock
        self._good_until = 0.0
        self._fetching: asyncio.Task[None] | None = None
        self._failed = False
        self._fetched_once = False
        self._servers = _configured(configured) if configured else [IceServer(urls=PUBLIC_STUN)]

    async def get(self) -> list[IceServer]:
        """The servers for one connection. Waits LONGEST_WAIT at most, and only before the first answer of the URL."""
        given = self._given()
        if given is not None:
            return [IceServer(**server) for server in given]
        if self._url is not None and self._clock() >= self._good_until:
            fetching = self.prefetch()
            if not self._fetched_once and fetching is not None:
                await asyncio.wait({fetching}, timeout=LONGEST_WAIT)
                # Had it its chance: later offers do not wait again.
                self._fetched_once = True
        return self._servers

    def prefetch(self) -> asyncio.Task[None] | None:
        """Begin to fetch, unless that is under way or needless."""
        if self._url is None or self._clock() < self._good_until:
            return None
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.ensure_future(self._refresh(self._url))
        return self._fetching

    def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()

    @property
    def _name(self) -> str:
        return f"{self._url} (the default of ICE_CONFIG_URL)" if self._is_default else "ICE_CONFIG_URL"

    async def _refresh(self, url: str) -> None:
        try:
            content = await asyncio.wait_for(self._fetch(url), FETCH_TIMEOUT)
            servers = parse(_listed(content))
            if not servers:
                raise ValueError("it lists no usable server")
        except Exception as error:
            self._good_until = self._clock() + RETRY
            if not self._failed:
                reason = " ".join(str(error).split()) or type(error).__name__
                reason = reason.replace(url, "the URL")  # it may hold a key
                if (status := getattr(error, "status", None)) is not None:  # of aiohttp's, whose text has the URL
                    reason = f"status {status}"
                level = "DEBUG" if self._is_default else "WARNING"
                logger.log(level, f"{self._name} did not give ICE servers ({reason}); serving the last good ones")
            self._failed = True
        else:
            if self._failed:
                logger.info(f"{self._name} gives ICE servers again")
            self._servers, self._failed = servers, False
            self._good_until = self._clock() + LIFETIME
        finally:
            self._fetched_once = True


def parse(entries: list[Any]) -> list[IceServer]:
    """Usable servers in the order in which aiortc should see them; what is malformed is dropped with a warning.

    aiortc uses only the first STUN and the first TURN URL, and TURN over UDP is the quicker one.
    """
    servers: list[IceServer] = []
    for entry in entries:
        urls, username, credential = _fields(entry)
        good = [url for url in map(_usable, urls) if url]
        if len(good) < len(urls) or not urls:
            logger.warning("An ICE server was dropped: its urls are not all stun: or turn: addresses")
        servers += [IceServer(urls=url, username=username, credential=credential) for url in good]
    return sorted(servers, key=lambda server: _rank(server.urls))


def _usable(url: Any) -> str | None:
    """The URL, if aiortc takes it: it would refuse every offer because of one that it does not (RFC 7064, 7065)."""
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
    lowered = url.lower()
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
    """PIPECAT_ICE_SERVERS: a comma list of URLs, or JSON: an object, or an array of objects and URLs."""
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
    """``{"iceConfig": {"iceServers": [...]}}``."""
    config = content.get("iceConfig") if isinstance(content, dict) else None
    servers = config.get("iceServers") if isinstance(config, dict) else None
    if not isinstance(servers, list):
        raise ValueError("it has no iceConfig.iceServers")
    return servers


async def _fetch(url: str) -> Any:
    async with bounded_session() as session, session.get(url) as response:
        response.raise_for_status()
        return await response.json(content_type=None)
