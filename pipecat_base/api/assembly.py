"""The routes of a pod that the settings and the installed packages allow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute, Route

from pipecat_base.api.bot import BotRoute
from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.flow_config import FlowFiles
from pipecat_base.api.health import Health
from pipecat_base.api.offer import OfferRoutes
from pipecat_base.api.unavailable import UnavailableRoutes
from pipecat_base.api.websocket import StreamTokens, WebSocketRoutes, stream_paths
from pipecat_base.api.whatsapp_calls import WhatsApp
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot import installed
from pipecat_base.config.settings import FileSettings, Settings, WhatsAppSettings
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.pod import BotDescription, Pod

if TYPE_CHECKING:
    from pipecat_base.bot.pod import LocalPod


def health_routes(settings: Settings, pod: Pod, lifecycle: Lifecycle) -> list[Route]:
    return Health(lifecycle, pod, ready_when_full=settings.start.ready_when_full).routes()


def session_routes(
    settings: Settings, pod: LocalPod, capabilities: Capabilities, tokens: Tokens | None
) -> list[BaseRoute]:
    """The routes that begin sessions, in the process that runs them. Without ``tokens`` they are not checked here."""
    bot = BotRoute(
        pod,
        capabilities,
        failure_status=settings.sessions.bot_failure_status,
        max_body_bytes=settings.limits.max_body_bytes,
    )
    websocket = WebSocketRoutes(
        pod,
        FlowFiles(settings.sessions.files_dir, max_bytes=settings.limits.max_body_bytes),
        StreamTokens(tokens),
        stream_paths(takes_tokens=settings.websockets.auth == "token"),
    )
    routes: list[BaseRoute] = [*bot.routes(), *websocket.routes()]
    if pod.about.webrtc_problem is None:
        routes += OfferRoutes(pod, max_body_bytes=settings.limits.max_body_bytes).routes()
    return routes


def whatsapp_calls(whatsapp: WhatsAppSettings, pod: Pod) -> WhatsApp | None:
    """None if it is not configured or not installed; the features summary names the missing part."""
    token, number = whatsapp.token, whatsapp.phone_number_id
    if token is None or number is None or whatsapp.app_secret is None:
        return None
    if pod.about.webrtc_problem is not None or not installed.has(*installed.WHATSAPP):
        return None
    return WhatsApp(token, number, pod)


def upload_routes(
    files: FileSettings, pod: LocalPod, on_stored: Callable[[str, str], None] | None = None
) -> list[BaseRoute]:
    if not takes_uploads(files, pod.about):
        return []
    from pipecat_base.api.uploads import UploadRoutes

    uploads = UploadRoutes(
        pod.registry, lambda: pod.arguments.file_storage, max_bytes=files.max_upload_bytes, on_stored=on_stored
    )
    return [*uploads.routes()]


def takes_uploads(files: FileSettings, about: BotDescription) -> bool:
    return about.has_file_storage or files.uploads_folder is not None


def missing_routes(settings: Settings, about: BotDescription, *, takes_whatsapp: bool) -> list[BaseRoute]:
    """Routes that answer 404 with the missing package or setting."""
    missing: dict[str, Callable[[], str]] = {}
    if about.webrtc_problem is not None:
        problem = about.webrtc_problem
        missing["/api/offer"] = lambda: problem
    if not takes_whatsapp:
        missing["/whatsapp"] = lambda: why_no_whatsapp(settings)
    return UnavailableRoutes(missing).routes()


def why_no_whatsapp(settings: Settings) -> str:
    from pipecat_base.bot.features import FeatureManager

    return FeatureManager(settings).whatsapp().line()
