"""Which parts this bot and these settings need, and how they are joined: sessions, transports, routes, the gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from pipecat_base import app as application
from pipecat_base import installed, webrtc, whatsapp
from pipecat_base.access.pod_token import PodTokenGuard
from pipecat_base.access.tokens import Tokens
from pipecat_base.arguments import ArgumentFactory
from pipecat_base.capabilities import Capabilities, CapabilitiesRoute
from pipecat_base.dispatch import Dispatch
from pipecat_base.flows import FlowFiles
from pipecat_base.lifecycle import Lifecycle
from pipecat_base.loader import Bot
from pipecat_base.logs import Logs
from pipecat_base.memory import MemoryRelease
from pipecat_base.paths import STARTS, STREAMS
from pipecat_base.performance import Performer
from pipecat_base.routes.bot import BotRoute
from pipecat_base.routes.health import Health
from pipecat_base.routes.missing import MissingRoutes
from pipecat_base.routes.offer import OfferRoutes
from pipecat_base.routes.websocket import WebSocketRoutes
from pipecat_base.sessions import Sessions
from pipecat_base.settings import Settings

STARTING_PATIENCE = 30.0
"""Seconds that a request to the gateway waits for a bot that is still set up."""


class Parts:
    """Made once, in this order.

    Attributes:
        sessions: Every session.
        memory: Releases it after each; None when it is not to.
        webrtc: None where it is not installed, or its arguments cannot be built.
        whatsapp: None where it is not installed or not configured.
        app: The bot's application with our routes.
        entrance: What every request comes through.
    """

    def __init__(
        self, settings: Settings, bot: Bot, arguments: ArgumentFactory, lifecycle: Lifecycle, logs: Logs
    ) -> None:
        self._settings = settings
        self._bot = bot
        self._arguments = arguments
        self._lifecycle = lifecycle
        self.memory = MemoryRelease(lambda: self.sessions.alone) if settings.release_session_memory else None
        performer = Performer(
            bot.function,
            bot_name=bot.name,
            project=bot.project,
            cancel_grace=settings.session_cancel_grace,
            redact=logs.redact,
            disconnects=(WebSocketDisconnect,),
        )
        self.sessions = Sessions(
            performer,
            max_sessions=settings.max_sessions,
            max_seconds=settings.max_session_seconds,
            refusal=lifecycle.refusal,
            lines_of=logs.of_session,
            after_each=_nothing if self.memory is None else self.memory,
        )
        takes_webrtc = installed.has(*installed.WEBRTC) and arguments.webrtc_problem is None
        self.webrtc = webrtc.WebRTC(settings, self.sessions, arguments) if takes_webrtc else None
        self._dispatch = Dispatch(self.sessions, arguments, self.webrtc, hide=logs.hide)
        self._capabilities = Capabilities(self._why_nots)
        self.whatsapp = self._whatsapp_calls()
        self._tokens = Tokens(settings.websocket_secret) if settings.websocket_auth == "token" else None
        bots_routes = application.bots_routes()
        self.app = application.build(self._routes(), MissingRoutes(self._missing()).routes())
        self.entrance = self._entrance_to(self.app, bots_routes)

    def _routes(self) -> list[Any]:
        settings = self._settings
        health = Health(
            self._lifecycle,
            self.sessions,
            readyz=self._bot.readyz,
            timeout=settings.readyz_timeout,
            ready_when_full=settings.ready_when_full,
        )
        bot = BotRoute(
            self._dispatch,
            self._capabilities,
            failure_status=settings.bot_failure_status,
            max_body_bytes=settings.max_body_bytes,
        )
        websocket = WebSocketRoutes(
            self.sessions,
            self._arguments,
            FlowFiles(settings.session_files_dir, max_bytes=settings.max_body_bytes),
            tokens=self._tokens,
            allowed_origins=frozenset(origin.lower() for origin in settings.allowed_origins),
        )
        routes: list[Any] = [*health.routes(), *bot.routes(), *websocket.routes()]
        if self.webrtc is not None:
            routes += OfferRoutes(self.webrtc, max_body_bytes=settings.max_body_bytes).routes()
        if self._takes_uploads:
            from pipecat_base.routes.uploads import UploadRoutes

            limit = settings.max_upload_bytes
            routes += UploadRoutes(self.sessions, lambda: self._arguments.file_storage, max_bytes=limit).routes()
        if self.whatsapp is not None:
            from pipecat_base.routes.whatsapp import WhatsAppRoutes  # no other bot waits for its imports

            routes += WhatsAppRoutes(
                self.whatsapp,
                app_secret=settings.whatsapp_app_secret or "",
                verification_token=settings.whatsapp_verification_token,
                max_body_bytes=settings.max_body_bytes,
            ).routes()
        return routes

    def _entrance_to(self, app: ASGIApp, bots_routes: Sequence[BaseRoute]) -> application.Entrance:
        """What callers come through: with a gateway it is between them and the pod."""
        settings = self._settings
        direct: ASGIApp = CapabilitiesRoute(app, self._capabilities)
        if settings.pod_token is not None:
            direct = PodTokenGuard(direct, settings.pod_token, STARTS + STREAMS)
        elif settings.gateway and settings.public_api_keys:
            direct = PodTokenGuard(direct, None, STARTS)
        if not settings.gateway:
            return application.Entrance(direct)
        from pipecat_base import gateway  # a pod does not import it
        from pipecat_base.gateway.pod import LocalPod

        pod = LocalPod(app, self._dispatch, self.sessions, self._lifecycle, self.webrtc, self._arguments)
        front = gateway.build(
            pod,
            settings,
            direct,
            bots_routes=bots_routes,
            bot=self._bot.file.name,
            has_uploads=self._takes_uploads,
            has_file_storage=self._bot.create_file_storage is not None,
            tokens=self._tokens,
        )
        return application.Entrance(front, patience=STARTING_PATIENCE, polled=gateway.POLLED)

    @property
    def _takes_uploads(self) -> bool:
        return self._bot.create_file_storage is not None or self._settings.uploads_folder is not None

    def _why_nots(self) -> Mapping[str, str | None]:
        from feature_manager import FeatureManager

        return FeatureManager(self._settings, types=self._arguments.types).capabilities()

    def _whatsapp_calls(self) -> whatsapp.WhatsApp | None:
        """None when it is not configured or not installed; the features summary says what is missing."""
        settings = self._settings
        token, number = settings.whatsapp_token, settings.whatsapp_phone_number_id
        if token is None or number is None or settings.whatsapp_app_secret is None:
            return None
        if self.webrtc is None or not installed.has(*installed.WHATSAPP):
            return None
        return whatsapp.WhatsApp(token, number, self.sessions, self._arguments, self.webrtc)

    def _missing(self) -> dict[str, Callable[[], str]]:
        """Why the routes that depend on what is installed and configured are not there."""
        reasons: dict[str, Callable[[], str]] = {}
        if self.webrtc is None:
            reasons["/api/offer"] = lambda: self._arguments.webrtc_problem or webrtc.NOT_INSTALLED
        if self.whatsapp is None:
            reasons["/whatsapp"] = self.whatsapp_reason
        return reasons

    def whatsapp_reason(self) -> str:
        """Why WhatsApp's calls are not taken here."""
        from feature_manager import FeatureManager

        return FeatureManager(self._settings).whatsapp().line()


async def _nothing() -> None:
    pass
