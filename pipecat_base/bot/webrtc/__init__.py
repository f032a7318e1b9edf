"""SmallWebRTC: answers offers, watches peers, fetches ICE servers. aiortc is imported on first use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipecat_base.bot.arguments import ArgumentFactory
from pipecat_base.bot.lazy_import import LazyImport
from pipecat_base.config.settings import WebRTCSettings
from pipecat_base.sessions.registry import SessionRegistry

if TYPE_CHECKING:
    from pipecat_base.bot.runner import BotRunner
    from pipecat_base.bot.webrtc.connections import PeerConnections
    from pipecat_base.bot.webrtc.ice import IceServers
    from pipecat_base.bot.webrtc.offers import Offer, Trickle
    from pipecat_base.bot.webrtc.sessions import WebRTCSessions

PLATFORMS_ICE_CONFIG_URL = "http://localhost:9090/ice-servers"  # in Pipecat Cloud's pods


@dataclass(frozen=True)
class WebRTCServices:
    sessions: WebRTCSessions
    peers: PeerConnections
    parse_offer: Callable[[Any], Offer]
    parse_trickle: Callable[[Any], Trickle]


class WebRTC:
    def __init__(
        self,
        settings: WebRTCSettings,
        default_ice_config_url: str | None,
        registry: SessionRegistry,
        runner: BotRunner,
        arguments: ArgumentFactory,
    ) -> None:
        self._settings = settings
        self._default_ice_config_url = default_ice_config_url
        self._registry = registry
        self._runner = runner
        self._arguments = arguments
        self._services = LazyImport("WebRTC", "pipecat_base.bot.webrtc.sessions", self._build)
        self._ice: IceServers | None = None
        self.given_ice_servers: list[dict[str, Any]] | None = None  # by another process: nothing is fetched

    async def load(self) -> WebRTCServices:
        """Import aiortc, which takes a second on a small machine, or raise NotSupported; then build the services."""
        return await self._services.get()

    async def configured_ice_servers(self) -> list[dict[str, Any]] | None:
        """ICE servers for clients, each with ``urls``, ``username`` and ``credential``; None if none are configured."""
        if not (self._settings.ice_servers or self._settings.ice_config_url):
            return None
        await self.load()
        assert self._ice is not None
        return _as_dicts(await self._ice.get())

    async def peers_ice_servers(self) -> list[dict[str, Any]]:
        """ICE servers of the peers here, which all answer, in the same form; requires :meth:`load`."""
        assert self._ice is not None
        return _as_dicts(await self._ice.answering())

    def close(self) -> None:
        if self._ice is not None:
            self._ice.close()

    def _build(self) -> WebRTCServices:
        from pipecat_base.bot.webrtc import offers
        from pipecat_base.bot.webrtc.connections import PeerConnections
        from pipecat_base.bot.webrtc.gathering import limit_gathering
        from pipecat_base.bot.webrtc.ice import IceServers
        from pipecat_base.bot.webrtc.server_watch import AnsweringServers
        from pipecat_base.bot.webrtc.sessions import WebRTCSessions

        settings = self._settings
        limit_gathering(settings.ice_timeout, settings.udp_ports)
        self._ice = ice = IceServers(
            settings.ice_servers,
            settings.ice_config_url,
            default_url=self._default_ice_config_url,
            given=lambda: self.given_ice_servers,
            timeout=settings.ice_timeout,
            answering=AnsweringServers(settings.ice_timeout),
        )
        if self.given_ice_servers is None:
            ice.prefetch()
        peers = PeerConnections(
            ice.answering,
            denied=settings.ice_deny,
            esp32_host=settings.esp32_host if settings.esp32_enabled else None,
            connect_timeout=settings.connect_timeout,
            disconnect_timeout=settings.disconnect_timeout,
        )
        sessions = WebRTCSessions(
            self._registry, self._runner, self._arguments, peers, offer_timeout=settings.offer_timeout
        )
        return WebRTCServices(sessions, peers, offers.parse_offer, offers.parse_trickle)


def _as_dicts(servers: Sequence[Any]) -> list[dict[str, Any]]:
    fields = [{name: getattr(server, name, None) for name in ("urls", "username", "credential")} for server in servers]
    return [{name: value for name, value in server.items() if value} for server in fields]
