"""SmallWebRTC: offers answered, peers watched, ICE servers fetched.

aiortc takes a second to import on a small machine, so nothing here imports it at the start: :meth:`WebRTC.load` does,
at the first offer, or right after the launcher is ready when the bot's sources speak of WebRTC.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat_base.arguments import ArgumentFactory
from pipecat_base.errors import NotSupported
from pipecat_base.logs import logger
from pipecat_base.sessions import Sessions
from pipecat_base.settings import Settings

if TYPE_CHECKING:
    from pipecat_base.webrtc.calls import Calls
    from pipecat_base.webrtc.ice import IceServers
    from pipecat_base.webrtc.offers import Offer, Trickle
    from pipecat_base.webrtc.peers import Peers

PLATFORMS_ICE_CONFIG_URL = "http://localhost:9090/ice-servers"
"""Where Pipecat Cloud's pods find ICE servers unless ICE_CONFIG_URL says otherwise."""
PUBLIC_STUN = "stun:stun.l.google.com:19302"
"""For who has no other, as in pipecat's runner."""
NOT_INSTALLED = "WebRTC is not installed here: pip install pipecat-ai[webrtc]."


@dataclass(frozen=True)
class Parts:
    """What the routes need, once aiortc is imported."""

    calls: Calls
    peers: Peers
    parse_offer: Callable[[Any], Offer]
    parse_trickle: Callable[[Any], Trickle]


class WebRTC:
    """Builds the parts when they are needed first."""

    def __init__(self, settings: Settings, sessions: Sessions, arguments: ArgumentFactory) -> None:
        self._settings = settings
        self._sessions = sessions
        self._arguments = arguments
        self._parts: Parts | None = None
        self._ice: IceServers | None = None
        self._loading = asyncio.Lock()

    async def load(self) -> Parts:
        """The parts.

        Raises:
            NotSupported: what is installed does not import.
        """
        async with self._loading:
            if self._parts is None:
                try:
                    # In a thread: other calls go on.
                    await asyncio.to_thread(_import)
                except Exception as error:
                    logger.error(f"WebRTC does not import: {type(error).__name__}: {error}")
                    raise NotSupported("WebRTC is installed here, but does not import.") from None
                self._parts = self._build()
            return self._parts

    async def configured_ice_servers(self) -> list[dict[str, Any]] | None:
        """What clients should use as well, ``urls``, ``username`` and ``credential`` of each; None without any."""
        if not (self._settings.ice_servers or self._settings.ice_config_url):
            return None
        await self.load()
        assert self._ice is not None
        names = ("urls", "username", "credential")
        servers = [{name: getattr(server, name, None) for name in names} for server in await self._ice.get()]
        return [{name: value for name, value in server.items() if value} for server in servers]

    def close(self) -> None:
        """Stop what goes on in the background."""
        if self._ice is not None:
            self._ice.close()

    def _build(self) -> Parts:
        from pipecat_base.webrtc import offers
        from pipecat_base.webrtc.calls import Calls
        from pipecat_base.webrtc.ice import IceServers
        from pipecat_base.webrtc.peers import Peers

        settings = self._settings
        is_image = settings.image_version is not None
        default_url = PLATFORMS_ICE_CONFIG_URL if is_image else None
        self._ice = ice = IceServers(settings.ice_servers, settings.ice_config_url, default_url=default_url)
        ice.prefetch()
        peers = Peers(
            ice,
            esp32_host=settings.esp32_host if settings.esp32_enabled else None,
            connect_timeout=settings.webrtc_connect_timeout,
            disconnect_timeout=settings.webrtc_disconnect_timeout,
        )
        calls = Calls(self._sessions, self._arguments, peers, offer_timeout=settings.webrtc_offer_timeout)
        return Parts(calls, peers, offers.parse_offer, offers.parse_trickle)


def _import() -> None:
    import pipecat_base.webrtc.calls  # noqa: F401
