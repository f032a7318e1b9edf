"""Puts together the parts that run the bot in this process."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.websockets import WebSocketDisconnect

from pipecat_base.bot import installed, sources, web_app, webrtc
from pipecat_base.bot.arguments import ArgumentFactory, load_types
from pipecat_base.bot.imported import Imported
from pipecat_base.bot.leftovers import Leftovers
from pipecat_base.bot.lifespan import BotLifespan
from pipecat_base.bot.memory import MemoryRelease
from pipecat_base.bot.pod import LocalPod
from pipecat_base.bot.readiness import Readiness
from pipecat_base.bot.runner import BotRunner
from pipecat_base.bot.spans import spans_for
from pipecat_base.bot.task import ABANDONED, BotFunction
from pipecat_base.config.settings import Settings, TelemetrySettings
from pipecat_base.logs.logger import Logs
from pipecat_base.sessions.pod import BotDescription
from pipecat_base.sessions.registry import SessionRegistry
from pipecat_base.telemetry.session_context import ObserverOptions, SessionEmit

if TYPE_CHECKING:
    from pipecat_base.bot.features import FeatureManager
    from pipecat_base.errors import Refusal

SPEAKS_OF_WEBRTC = rb"(?i)webrtc"
WEBRTC_MODULE = "pipecat_base.bot.webrtc.sessions"


def for_worker(settings: Settings) -> Settings:
    """Settings of a worker: the launcher counts its sessions, and a worker of one session has no memory to release."""
    releases = settings.sessions.release_memory and settings.workers.calls_share_process
    sessions = replace(settings.sessions, max_sessions=None, release_memory=releases)
    return replace(settings, sessions=sessions)


def session_registry(
    settings: Settings, refusal: Callable[[], Refusal | None]
) -> tuple[SessionRegistry, MemoryRelease | None]:
    """The registry, and what releases memory after each of its sessions, if the settings ask for that."""
    memory = MemoryRelease(lambda: len(registry) <= 1) if settings.sessions.release_memory else None
    registry = SessionRegistry(
        max_sessions=settings.sessions.max_sessions,
        max_seconds=settings.sessions.max_seconds,
        start_grace=settings.webrtc.start_grace,
        refusal=refusal,
        keeps_bot_errors=settings.gateway.is_enabled and settings.gateway.serves_this_machine_only,
        on_session_closed=memory,
    )
    return registry, memory


def local_pod(
    settings: Settings,
    imported: Imported,
    registry: SessionRegistry,
    memory: MemoryRelease | None,
    logs: Logs,
    emit: SessionEmit | None = None,
) -> LocalPod:
    """A pod that runs the bot in this process; ``setup()`` has not run yet. ``emit`` receives its sessions' events."""
    bot = imported.bot
    arguments = ArgumentFactory(
        wants_cloud=imported.wants_cloud, guard=logs.unchanged, default_flow=settings.flow_config
    )
    bot_function = BotFunction(
        bot.function,
        name=bot.name,
        project=bot.project,
        cancel_grace=settings.sessions.cancel_grace,
        redact=logs.redact,
        disconnects=(WebSocketDisconnect,),
    )
    # With a process for each call, the template process has logged the warnings.
    spans = spans_for(imported.bot.project, warns=settings.workers.isolation == "none")
    runner = BotRunner(
        registry,
        bot_function,
        lines_of=logs.of_session,
        emit=emit,
        options=_observer_options(settings.telemetry),
        spans=spans,
        session_info=installed.session_info(settings.files.image_version)
        if settings.telemetry.event_publisher is not None
        else {},
        is_shared=settings.workers.calls_share_process,
    )
    app = web_app.bots_app()
    lifespan = BotLifespan(
        bot,
        nullcontext() if app is None else app.router.lifespan_context(app),
        uploads_folder=settings.files.uploads_folder,
        setup_timeout=settings.start.setup_timeout,
        teardown_timeout=settings.shutdown.teardown_timeout,
    )
    # In the image: Pipecat Cloud's, if ICE_CONFIG_URL names no other.
    ice_config_url = None if settings.files.image_version is None else webrtc.PLATFORMS_ICE_CONFIG_URL
    problem = imported.webrtc_problem if installed.has(*installed.WEBRTC) else installed.NO_WEBRTC
    about = BotDescription(
        name=bot.name,
        file=bot.file.name,
        webrtc_problem=problem,
        has_file_storage=bot.create_file_storage is not None,
        has_app=app is not None,
        routes=web_app.bots_routes(),
    )

    def features() -> FeatureManager:
        from pipecat_base.bot.features import FeatureManager

        return FeatureManager(settings, has_file_storage=about.has_file_storage, types=arguments.types)

    return LocalPod(
        about,
        registry,
        runner,
        arguments,
        lifespan,
        Readiness(bot.readyz, timeout=settings.start.readyz_timeout),
        None if problem is not None else webrtc.WebRTC(settings.webrtc, ice_config_url, registry, runner, arguments),
        memory=memory,
        features=features,
        expects_webrtc=lambda: sources.mentions(bot.project, SPEAKS_OF_WEBRTC),
        hide=logs.hide,
        spans=spans,
        leftovers=Leftovers(settings.shutdown.exit_grace, bot.project, ABANDONED),
        agent_name=settings.gateway.agent_name if settings.gateway.is_enabled else None,
    )


def import_for_sessions(imported: Imported, logs: Logs, *, webrtc: bool) -> bool:
    """Import modules that sessions will need, before workers are forked. Returns whether WebRTC's are among them."""
    with logs.unchanged():
        load_types(cloud=imported.wants_cloud)
        spans_for(imported.bot.project).import_modules()
        if not (webrtc or sources.mentions(imported.bot.project, SPEAKS_OF_WEBRTC)):
            return False
        importlib.import_module(WEBRTC_MODULE)
    return True


def _observer_options(telemetry: TelemetrySettings) -> ObserverOptions:
    events_have_content = telemetry.event_publisher is not None and not telemetry.exclude_content
    return ObserverOptions(metrics=telemetry.is_observed, content=telemetry.report_content or events_have_content)
