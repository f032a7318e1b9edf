"""Which parts this bot and these settings need, and how they are joined: the only place where settings are handed out.

:func:`local_pod` makes the bot's side, :func:`front` what callers come through.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocketDisconnect

from pipecat_base.api import app as application
from pipecat_base.api.bot import BotRoute
from pipecat_base.api.capabilities import Capabilities, CapabilitiesRoute
from pipecat_base.api.flow_config import FlowFiles
from pipecat_base.api.health import Health
from pipecat_base.api.offer import OfferRoutes
from pipecat_base.api.unavailable import UnavailableRoutes
from pipecat_base.api.websocket import WebSocketRoutes
from pipecat_base.api.whatsapp_calls import WhatsApp
from pipecat_base.auth import host_and_origin
from pipecat_base.auth.internal_headers import InternalHeaders
from pipecat_base.auth.keys import KeyGuard, Keys
from pipecat_base.auth.origins import OriginGuard
from pipecat_base.auth.pod_token import PodTokenGuard
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot import installed, loader, webrtc
from pipecat_base.bot.arguments import ArgumentFactory, load_types
from pipecat_base.bot.imported import Imported
from pipecat_base.bot.lifespan import BotLifespan
from pipecat_base.bot.memory import MemoryRelease
from pipecat_base.bot.pod import LocalPod
from pipecat_base.bot.readiness import Readiness
from pipecat_base.bot.runner import BotRunner
from pipecat_base.bot.spans import SETS_TRACING_UP, Spans
from pipecat_base.bot.task import BotFunction
from pipecat_base.config import environment
from pipecat_base.config.settings import Settings
from pipecat_base.errors import SettingsInvalid
from pipecat_base.logs.logger import Logs
from pipecat_base.server.client_address import TraceHeaders
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.limits import ServerLimits, connections_for, descriptor_limit
from pipecat_base.server.paths import STARTS, STREAMS
from pipecat_base.sessions.pod import BotDescription, Pod
from pipecat_base.sessions.registry import SessionRegistry
from pipecat_base.telemetry.bus import EventBus, EventSink
from pipecat_base.telemetry.session_context import ObserverOptions, SessionEmit

if TYPE_CHECKING:
    from pipecat_base.bot.features import FeatureManager
    from pipecat_base.gateway.pending_sessions import PendingSessions
    from pipecat_base.server.metrics_server import MetricsServer
    from pipecat_base.telemetry.metrics import Metrics
    from pipecat_base.telemetry.reports import Reports
    from pipecat_base.workers.fork_client import ForkClient, TemplateClient

STARTING_WAIT = 30.0
"""Seconds that a request to the gateway waits for a bot that is still set up."""
SPEAKS_OF_WEBRTC = rb"(?i)webrtc"
WEBRTC_MODULE = "pipecat_base.bot.webrtc.sessions"


@dataclass(frozen=True)
class Stage:
    """Who runs the bot, and how its requests are answered.

    Attributes:
        build: Makes the application of our routes, and of what is missing here.
        ws: What serves WebSockets, as uvicorn takes it; None where they are served in this process.
        count_processes: Gives the number of processes that run bots, by what they do, in any thread; None where there
            is none for each call.
        renew: Imports the bot again with this environment; None where it stays as it is.
    """

    pod: Pod
    build: Callable[[list[BaseRoute], list[BaseRoute]], ASGIApp]
    ws: Any = None
    renew: Callable[[Mapping[str, str]], Awaitable[None]] | None = None
    count_processes: Callable[[], Mapping[str, int]] | None = None


@dataclass(frozen=True)
class Observation:
    """Who reads what is told of calls.

    Attributes:
        metrics: None without PIPECAT_METRICS_PORT.
        metrics_server: Serves the metrics.
        reports: None where nobody asks for them.
    """

    event_bus: EventBus
    metrics: Metrics | None = None
    metrics_server: MetricsServer | None = None
    reports: Reports | None = None

    def close(self, within: float) -> None:
        """Let every reader finish, and answer no more scrapes. Called in a thread."""
        deadline = time.monotonic() + within
        self.event_bus.close(within)
        if self.metrics_server is not None:
            self.metrics_server.close(max(0.0, deadline - time.monotonic()))


def observation(settings: Settings) -> Observation:
    """The readers that these settings ask for.

    Raises:
        SettingsInvalid: PIPECAT_REPORTS_DIR cannot be used.
        PortUnavailable: PIPECAT_METRICS_PORT cannot be listened on.
    """
    readers: list[EventSink] = []
    metrics: Metrics | None = None
    metrics_server: MetricsServer | None = None
    reports: Reports | None = None
    if settings.telemetry.metrics_port is not None:
        from pipecat_base.server.metrics_server import MetricsServer
        from pipecat_base.telemetry.metrics import Metrics

        metrics = Metrics()
        host = settings.telemetry.metrics_host or settings.server.host
        as_pod = partial(host_and_origin.of_pod, settings=replace(settings, server=replace(settings.server, host=host)))
        metrics_server = MetricsServer(
            host, settings.telemetry.metrics_port, metrics.registry, limits(settings), as_pod
        )
        metrics.describe(pipecat=installed.version(installed.PIPECAT), slots=settings.sessions.max_sessions)
        readers.append(metrics)
    if (
        settings.telemetry.reports_dir is not None
        or settings.telemetry.report_url is not None
        or settings.gateway.is_enabled
    ):
        from pipecat_base.telemetry.reports import Reports

        try:
            reports = Reports(
                settings.telemetry.reports_dir,
                settings.telemetry.report_url,
                settings.telemetry.report_secret,
                content=settings.telemetry.report_content,
            )
        except OSError as error:
            raise SettingsInvalid(
                [f"PIPECAT_REPORTS_DIR: {settings.telemetry.reports_dir} cannot be written ({error.strerror})"]
            ) from None
        readers.append(reports)
    if settings.telemetry.event_publisher is not None:
        from pipecat_base.telemetry.event_publisher import EventPublisher

        readers.append(
            EventPublisher(settings.telemetry.event_publisher, content=not settings.telemetry.exclude_content)
        )
    return Observation(EventBus(readers), metrics, metrics_server, reports)


def _listening(settings: Settings) -> ObserverOptions:
    """What is to be heard of sessions in a process that runs them."""
    events_have_content = settings.telemetry.event_publisher is not None and not settings.telemetry.exclude_content
    return ObserverOptions(
        metrics=settings.telemetry.is_observed,
        content=settings.telemetry.report_content or events_have_content,
    )


@dataclass(frozen=True)
class Front:
    """What callers come through.

    Attributes:
        whatsapp: None where it is not installed or not configured.
        entrance: Every request's.
        tokens: Of WebSockets; None where they need none.
        pending_sessions: What ``/start`` has promised; None without a gateway.
    """

    whatsapp: WhatsApp | None
    entrance: application.EntryMiddleware
    tokens: Tokens | None
    pending_sessions: PendingSessions | None


def local_stage(settings: Settings, imported: Imported, lifecycle: Lifecycle, logs: Logs, event_bus: EventBus) -> Stage:
    """The bot in this process, not set up yet; our routes are put on its app."""

    def take(session_id: str, name: str, fields: Mapping[str, Any], at: float) -> None:
        event_bus.emit(name, session_id, fields, at)

    pod = local_pod(settings, imported, lifecycle, logs, take)
    pod.registry.on_change(event_bus.on_change)

    def build(routes: list[BaseRoute], missing: list[BaseRoute]) -> ASGIApp:
        return application.build([*routes, *upload_routes(settings, pod)], missing)

    return Stage(pod, build)


def pool_stage(
    settings: Settings,
    fork_client: ForkClient,
    template: TemplateClient,
    lifecycle: Lifecycle,
    logs: Logs,
    event_bus: EventBus,
) -> Stage:
    """The bot in processes of its own: one for each call, or one for all where it may be reloaded."""
    from pipecat_base.workers.limits import WorkerLimits as ProcessLimits
    from pipecat_base.workers.pool import WorkerPool
    from pipecat_base.workers.websocket_handoff import WebSocketHandoff

    registry, memory = _registry(settings, lifecycle)
    registry.on_change(event_bus.on_change)
    if memory is not None:
        memory.freeze()
    is_shared = settings.workers.isolation == "none"
    bounds = ProcessLimits(
        idle=0 if is_shared else settings.workers.idle_processes or min(4, os.cpu_count() or 1),
        take_timeout=settings.workers.process_timeout,
        setup_timeout=settings.start.setup_timeout,
        teardown_timeout=settings.shutdown.teardown_timeout,
        cancel_grace=settings.sessions.cancel_grace,
        readyz_timeout=settings.start.readyz_timeout,
        max_memory=settings.workers.max_memory_bytes,
    )
    pool = WorkerPool(
        registry,
        fork_client,
        template,
        settings.workers.process_start,
        bounds,
        shared=is_shared,
        lines_of=logs.of_session,
        emit=event_bus.emit,
    )

    def build(routes: list[BaseRoute], missing: list[BaseRoute]) -> ASGIApp:
        return application.build_for_workers(
            routes,
            missing,
            pool.answer,
            has_app=pool.about.has_app,
            passed_on=("/files",) if _takes_uploads(settings, pool.about) else (),
            clashing=pool.about.routes,
        )

    count_processes = None if is_shared else lambda: pool.counts
    return Stage(pool, build, WebSocketHandoff, pool.renew, count_processes)


def limits(settings: Settings) -> ServerLimits:
    """What connections may cost."""
    return ServerLimits(
        head_timeout=settings.limits.head_timeout,
        body_timeout=settings.limits.body_timeout,
        max_head=settings.limits.max_head_bytes,
        max_connections=settings.limits.max_connections or connections_for(descriptor_limit()),
        max_unfinished=settings.limits.max_unfinished_bytes,
        frame_rate=settings.limits.max_frames_per_second,
    )


def for_worker(settings: Settings) -> Settings:
    """Of a worker: what the launcher bounds is bounded there. One that takes one session has nothing to give back."""
    releases = settings.sessions.release_memory and settings.workers.isolation == "none"
    sessions = replace(settings.sessions, max_sessions=None, max_seconds=None, release_memory=releases)
    return replace(settings, sessions=sessions)


def import_for_sessions(imported: Imported, logs: Logs, *, webrtc: bool) -> bool:
    """Import what sessions will need, in a process that forks those that take them; whether WebRTC's part is in it."""
    with logs.unchanged():
        load_types(cloud=imported.wants_cloud)
        _spans(imported).import_modules()
        if not (webrtc or loader.mentions(imported.bot.project, SPEAKS_OF_WEBRTC)):
            return False
        importlib.import_module(WEBRTC_MODULE)
    return True


def local_pod(
    settings: Settings, imported: Imported, lifecycle: Lifecycle, logs: Logs, take: SessionEmit | None = None
) -> LocalPod:
    """The bot in this process, not set up yet.

    Args:
        take: Takes facts of sessions.
    """
    bot = imported.bot
    arguments = ArgumentFactory(wants_cloud=imported.wants_cloud, guard=logs.unchanged)
    registry, memory = _registry(settings, lifecycle)
    bot_function = BotFunction(
        bot.function,
        name=bot.name,
        project=bot.project,
        cancel_grace=settings.sessions.cancel_grace,
        redact=logs.redact,
        disconnects=(WebSocketDisconnect,),
    )
    # With a process for each call, the one that forks them has said it.
    spans = _spans(imported, warns=settings.workers.isolation == "none")
    runs = BotRunner(
        registry,
        bot_function,
        lines_of=logs.of_session,
        emit=take,
        options=_listening(settings),
        spans=spans,
        session_info=installed.session_info(settings.files.image_version)
        if settings.telemetry.event_publisher is not None
        else {},
        is_shared=settings.workers.isolation == "none",
    )
    bots_app = application.bots_app()
    lifespan = BotLifespan(
        bot,
        nullcontext() if bots_app is None else bots_app.router.lifespan_context(bots_app),
        uploads_folder=settings.files.uploads_folder,
        setup_timeout=settings.start.setup_timeout,
        teardown_timeout=settings.shutdown.teardown_timeout,
    )
    problem = imported.webrtc_problem if installed.has(*installed.WEBRTC) else installed.NO_WEBRTC
    about = BotDescription(
        name=bot.name,
        file=bot.file.name,
        webrtc_problem=problem,
        has_file_storage=bot.create_file_storage is not None,
        has_app=bots_app is not None,
        routes=application.bots_routes(),
    )

    def features() -> FeatureManager:
        # The module's name appears in users' logs; it is not needed otherwise.
        from pipecat_base.bot.features import FeatureManager

        return FeatureManager(settings, has_file_storage=about.has_file_storage, types=arguments.types)

    return LocalPod(
        about,
        registry,
        runs,
        arguments,
        lifespan,
        Readiness(bot.readyz, timeout=settings.start.readyz_timeout),
        webrtc.WebRTC(_webrtc_options(settings), registry, runs, arguments) if problem is None else None,
        memory=memory,
        features=features,
        expects_webrtc=lambda: loader.mentions(bot.project, SPEAKS_OF_WEBRTC),
        hide=logs.hide,
        spans=spans,
    )


def upload_routes(
    settings: Settings, pod: LocalPod, on_stored: Callable[[str, str], None] | None = None
) -> list[BaseRoute]:
    """Where the bot's files are taken, if it takes any."""
    if not _takes_uploads(settings, pod.about):
        return []
    from pipecat_base.api.uploads import UploadRoutes

    uploads = UploadRoutes(
        pod.registry, lambda: pod.arguments.file_storage, max_bytes=settings.files.max_upload_bytes, on_stored=on_stored
    )
    return [*uploads.routes()]


def front(
    settings: Settings,
    stage: Stage,
    lifecycle: Lifecycle,
    observation: Observation,
    before: Front | None = None,
    *,
    shows_bot_errors: bool = False,
) -> Front:
    """Our routes on the bot's app, and what is around them.

    Args:
        observation: Learns of refusals, and has the reports that callers may ask for.
        shows_bot_errors: Whether callers are those who work on the bot: they see what it raised, and where.
        before: What takes the place of it: what it has promised is kept.
    """
    pod = stage.pod
    tokens = Tokens(settings.websockets.secret) if settings.websockets.auth == "token" else None
    calls, pending_sessions = _whatsapp(settings, pod), None
    if before is not None:
        tokens, pending_sessions = before.tokens, before.pending_sessions
        calls = before.whatsapp if calls is not None and before.whatsapp is not None else calls
    elif settings.gateway.is_enabled:
        from pipecat_base.gateway.pending_sessions import PendingSessions

        pending_sessions = PendingSessions()
    capabilities = Capabilities(pod.capability_problems)
    routes = _routes(settings, pod, lifecycle, capabilities, tokens)
    if calls is not None:
        from pipecat_base.api.whatsapp import WhatsAppRoutes  # no other bot waits for its imports

        routes += WhatsAppRoutes(
            calls,
            app_secret=settings.whatsapp.app_secret or "",
            verification_token=settings.whatsapp.verification_token,
            max_body_bytes=settings.limits.max_body_bytes,
        ).routes()
    missing = missing_routes(settings, pod.about, takes_whatsapp=calls is not None)
    inside = stage.build(routes, missing)
    guarded = [*routes, *(route for route in missing if getattr(route, "path", "") in STARTS)]
    entrance = _entrance(
        settings,
        pod,
        inside,
        guarded,
        lifecycle,
        capabilities,
        tokens,
        pending_sessions,
        observation,
        shows_bot_errors=shows_bot_errors,
    )
    return Front(calls, entrance, tokens, pending_sessions)


def missing_routes(settings: Settings, about: BotDescription, *, takes_whatsapp: bool) -> list[BaseRoute]:
    """Those that depend on what is installed and configured, and say so."""
    missing: dict[str, Callable[[], str]] = {}
    if about.webrtc_problem is not None:
        problem = about.webrtc_problem
        missing["/api/offer"] = lambda: problem
    if not takes_whatsapp:
        missing["/whatsapp"] = lambda: why_no_whatsapp(settings)
    return UnavailableRoutes(missing).routes()


def why_no_whatsapp(settings: Settings) -> str:
    """Why WhatsApp's calls are not taken here."""
    from pipecat_base.bot.features import FeatureManager

    return FeatureManager(settings).whatsapp().line()


def _registry(settings: Settings, lifecycle: Lifecycle) -> tuple[SessionRegistry, MemoryRelease | None]:
    """The board, and what releases memory after each session on it, if that is to be."""
    memory = MemoryRelease(lambda: len(registry) <= 1) if settings.sessions.release_memory else None
    registry = SessionRegistry(
        max_sessions=settings.sessions.max_sessions,
        max_seconds=settings.sessions.max_seconds,
        start_grace=settings.webrtc.start_grace,
        refusal=lifecycle.refusal,
        keeps_bot_errors=settings.gateway.is_enabled and settings.gateway.serves_this_machine_only,
        after_each=memory,
    )
    return registry, memory


def _spans(imported: Imported, *, warns: bool = True) -> Spans:
    return Spans(
        environment.read(), bot_sets_up=lambda: loader.mentions(imported.bot.project, SETS_TRACING_UP), warns=warns
    )


def _webrtc_options(settings: Settings) -> webrtc.WebRTCOptions:
    is_image = settings.files.image_version is not None
    return webrtc.WebRTCOptions(
        ice_servers=settings.webrtc.ice_servers,
        ice_config_url=settings.webrtc.ice_config_url,
        default_ice_config_url=webrtc.PLATFORMS_ICE_CONFIG_URL if is_image else None,
        ice_deny=settings.webrtc.ice_deny,
        esp32_host=settings.webrtc.esp32_host if settings.webrtc.esp32_enabled else None,
        connect_timeout=settings.webrtc.connect_timeout,
        disconnect_timeout=settings.webrtc.disconnect_timeout,
        offer_timeout=settings.webrtc.offer_timeout,
    )


def _routes(
    settings: Settings, pod: Pod, lifecycle: Lifecycle, capabilities: Capabilities, tokens: Tokens | None
) -> list[Any]:
    health = Health(lifecycle, pod, ready_when_full=settings.start.ready_when_full)
    bot = BotRoute(
        pod,
        capabilities,
        failure_status=settings.sessions.bot_failure_status,
        max_body_bytes=settings.limits.max_body_bytes,
    )
    websocket = WebSocketRoutes(
        pod,
        FlowFiles(settings.sessions.files_dir, max_bytes=settings.limits.max_body_bytes),
        tokens=tokens,
    )
    routes: list[Any] = [*health.routes(), *bot.routes(), *websocket.routes()]
    if pod.about.webrtc_problem is None:
        routes += OfferRoutes(pod, max_body_bytes=settings.limits.max_body_bytes).routes()
    return routes


def _whatsapp(settings: Settings, pod: Pod) -> WhatsApp | None:
    """None when it is not configured or not installed; the features summary says what is missing."""
    token, number = settings.whatsapp.token, settings.whatsapp.phone_number_id
    if token is None or number is None or settings.whatsapp.app_secret is None:
        return None
    if pod.about.webrtc_problem is not None or not installed.has(*installed.WHATSAPP):
        return None
    return WhatsApp(token, number, pod)


def _takes_uploads(settings: Settings, about: BotDescription) -> bool:
    return about.has_file_storage or settings.files.uploads_folder is not None


def _entrance(
    settings: Settings,
    pod: Pod,
    inside: ASGIApp,
    ours: list[BaseRoute],
    lifecycle: Lifecycle,
    capabilities: Capabilities,
    tokens: Tokens | None,
    pending_sessions: PendingSessions | None,
    observation: Observation,
    *,
    shows_bot_errors: bool,
) -> application.EntryMiddleware:
    """What callers come through: with a gateway it is between them and the pod."""
    direct: ASGIApp = CapabilitiesRoute(inside, capabilities)
    keys = Keys(settings.gateway.public_api_keys, settings.gateway.private_api_keys)
    if settings.gateway.is_enabled and keys.are_needed:
        direct = InternalHeaders(direct, settings.gateway.pod_token)
    if settings.gateway.pod_token is not None:
        direct = PodTokenGuard(direct, settings.gateway.pod_token, STARTS + STREAMS)
    elif settings.gateway.is_enabled and keys.are_needed:
        direct = PodTokenGuard(direct, None, STARTS)
    if pending_sessions is None:
        direct = _guarded(host_and_origin.of_pod(direct, settings), settings)
        return application.EntryMiddleware(direct, on_refusal=observation.event_bus.on_refusal)
    from pipecat_base.gateway import app as gateway  # a pod does not import it

    if keys.are_needed:
        direct = KeyGuard(direct, keys, ours, settings.gateway.open_routes)
    has_uploads = _takes_uploads(settings, pod.about)
    app = gateway.build(
        pod,
        settings,
        inside,
        direct,
        lifecycle,
        pending_sessions,
        keys=keys,
        has_uploads=has_uploads,
        tokens=tokens,
        report_of=lambda session_id: None if observation.reports is None else observation.reports.get(session_id),
        shows_bot_errors=shows_bot_errors,
    )
    return application.EntryMiddleware(
        _guarded(app, settings),
        startup_wait=STARTING_WAIT,
        polled=gateway.POLLED,
        on_refusal=observation.event_bus.on_refusal,
    )


def _guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """With what is decided by headers alone around it."""
    if settings.websockets.allowed_origins:
        app = OriginGuard(app, settings.websockets.allowed_origins)
    trusted = settings.telemetry.trust_traceparent
    if trusted is None and settings.gateway.is_enabled and settings.gateway.has_keys:
        trusted = ()
    return app if trusted is None else TraceHeaders(app, trusted)
