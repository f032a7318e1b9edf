"""SmallWebRTC: offers answered, peers watched, ICE servers fetched.

aiortc takes a second to import on a small machine, so nothing here imports it at the start: :meth:`WebRTC.load` does,
at the first offer, or right after the launcher is ready when the bot's sources speak of WebRTC.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat_base.bot.arguments import ArgumentFactory
from pipecat_base.bot.lazy_import import LazyImport
from pipecat_base.bot.runner import BotRunner
from pipecat_base.sessions.registry import SessionRegistry

if TYPE_CHECKING:
    from pipecat_base.bot.webrtc.connections import PeerConnections
    from pipecat_base.bot.webrtc.destinations import Network
    from pipecat_base.bot.webrtc.ice import IceServers
    from pipecat_base.bot.webrtc.offers import Offer, Trickle
    from pipecat_base.bot.webrtc.sessions import WebRTCSessions

PLATFORMS_ICE_CONFIG_URL = "http://localhost:9090/ice-servers"
"""Where Pipecat Cloud's pods find ICE servers unless ICE_CONFIG_URL says otherwise."""


@dataclass(frozen=True)
class WebRTCOptions:
    """What operators set; times in seconds.

    Attributes:
        ice_servers: PIPECAT_ICE_SERVERS.
        ice_config_url: ICE_CONFIG_URL.
        default_ice_config_url: Tried without it.
        ice_deny: PIPECAT_ICE_DENY.
        esp32_host: Adapt answers for an ESP32 that reaches us at this address; None for other clients.
        connect_timeout: For a peer to connect.
        disconnect_timeout: Of silence, after which a peer is gone.
        offer_timeout: For the offer that a waiting ``POST /bot`` gets.
    """

    ice_servers: str | None
    ice_config_url: str | None
    default_ice_config_url: str | None
    ice_deny: Sequence[Network]
    esp32_host: str | None
    connect_timeout: float
    disconnect_timeout: float
    offer_timeout: float


@dataclass(frozen=True)
class WebRTCServices:
    """What answers offers, once aiortc is imported."""

    calls: WebRTCSessions
    peers: PeerConnections
    parse_offer: Callable[[Any], Offer]
    parse_trickle: Callable[[Any], Trickle]


class WebRTC:
    """Builds the parts when they are needed first."""

    def __init__(
        self, options: WebRTCOptions, registry: SessionRegistry, runs: BotRunner, arguments: ArgumentFactory
    ) -> None:
        self._options = options
        self._registry = registry
        self._runs = runs
        self._arguments = arguments
        self._parts = LazyImport("WebRTC", "pipecat_base.bot.webrtc.sessions", self._build)
        self._ice: IceServers | None = None
        self.given_ice_servers: list[dict[str, Any]] | None = None
        """Somebody else has looked for them: nothing is fetched."""

    async def load(self) -> WebRTCServices:
        """The parts.

        Raises:
            NotSupported: what is installed does not import.
        """
        return await self._parts.get()

    async def configured_ice_servers(self) -> list[dict[str, Any]] | None:
        """What clients should use as well, ``urls``, ``username`` and ``credential`` of each; None without any."""
        if not (self._options.ice_servers or self._options.ice_config_url):
            return None
        await self.load()
        return await self.ice_servers()

    async def ice_servers(self) -> list[dict[str, Any]]:
        """What peers use, in the same form. It must be loaded."""
        assert self._ice is not None
        names = ("urls", "username", "credential")
        servers = [{name: getattr(server, name, None) for name in names} for server in await self._ice.get()]
        return [{name: value for name, value in server.items() if value} for server in servers]

    def close(self) -> None:
        """Stop what goes on in the background."""
        if self._ice is not None:
            self._ice.close()

    def _build(self) -> WebRTCServices:
        from pipecat_base.bot.webrtc import offers
        from pipecat_base.bot.webrtc.connections import PeerConnections
        from pipecat_base.bot.webrtc.ice import IceServers
        from pipecat_base.bot.webrtc.sessions import WebRTCSessions

        options = self._options
        self._ice = ice = IceServers(
            options.ice_servers,
            options.ice_config_url,
            default_url=options.default_ice_config_url,
            given=lambda: self.given_ice_servers,
        )
        if self.given_ice_servers is None:
            ice.prefetch()
        peers = PeerConnections(
            ice,
            denied=options.ice_deny,
            esp32_host=options.esp32_host,
            connect_timeout=options.connect_timeout,
            disconnect_timeout=options.disconnect_timeout,
        )
        calls = WebRTCSessions(self._registry, self._runs, self._arguments, peers, offer_timeout=options.offer_timeout)
        return WebRTCServices(calls, peers, offers.parse_offer, offers.parse_trickle)
