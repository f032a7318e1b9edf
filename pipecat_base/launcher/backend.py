"""The pod that runs sessions: in this process, or in workers."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from pipecat_base.api import app as application
from pipecat_base.api import assembly
from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.clashes import warn_of_clashes
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot.assembly import local_pod, session_registry
from pipecat_base.bot.imported import Imported
from pipecat_base.config.settings import Settings
from pipecat_base.logs.logger import Logs
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.pod import Pod
from pipecat_base.telemetry.bus import EventBus

if TYPE_CHECKING:
    from pipecat_base.workers.fork_client import ForkServerProcess, TemplateConnection


@dataclass(frozen=True)
class Backend:
    """A pod and its web application.

    Attributes:
        session_routes: Makes the routes that begin sessions.
        build: Makes the application of the launcher's routes and of those that are unavailable here.
        ws: Protocol class for uvicorn; None if WebSockets are served in this process.
        wait_for_leftovers: Waits for what bots have left running; None if processes of their own do that.
        count_processes: Counts processes by their state, in any thread; None without a process for each call.
        renew: Imports the bot again, with this environment; None if the bot cannot be reloaded.
    """

    pod: Pod
    session_routes: Callable[[Capabilities, Tokens | None], list[BaseRoute]]
    build: Callable[[list[BaseRoute], list[BaseRoute]], ASGIApp]
    ws: Any = None
    renew: Callable[[Mapping[str, str]], Awaitable[None]] | None = None
    count_processes: Callable[[], Mapping[str, int]] | None = None
    wait_for_leftovers: Callable[[], Awaitable[None]] | None = None


def local_backend(
    settings: Settings, imported: Imported, logs: Logs, lifecycle: Lifecycle, event_bus: EventBus
) -> Backend:
    def take(session_id: str, name: str, fields: Mapping[str, Any], at: float) -> None:
        event_bus.emit(name, session_id, fields, at)

    registry, memory = session_registry(settings, lifecycle.refusal)
    registry.on_change(event_bus.on_change)
    pod = local_pod(settings, imported, registry, memory, logs, take)

    def build(routes: list[BaseRoute], missing: list[BaseRoute]) -> ASGIApp:
        routes = [*routes, *assembly.upload_routes(settings.files, pod)]
        warn_of_clashes(routes, pod.about.routes)
        return application.build(routes, missing)

    session_routes = partial(assembly.session_routes, settings, pod)
    return Backend(pod, session_routes, build, wait_for_leftovers=pod.wait_for_leftovers)


def import_pool() -> None:
    """Import what :func:`pool_backend` needs, while something else is waited for."""
    import pipecat_base.launcher.worker_routes
    import pipecat_base.workers.pool  # noqa: F401


def pool_backend(
    settings: Settings,
    fork_server: ForkServerProcess,
    template: TemplateConnection,
    logs: Logs,
    lifecycle: Lifecycle,
    event_bus: EventBus,
) -> Backend:
    """Workers run the bot: one for each call, or one for all calls if the bot may be reloaded."""
    from pipecat_base.launcher.worker_routes import WorkerRoutes, noting_refusals
    from pipecat_base.workers.limits import WorkerLimits as ProcessLimits
    from pipecat_base.workers.pool import WorkerPool
    from pipecat_base.workers.websocket_handoff import WebSocketHandoff

    registry, memory = session_registry(settings, lifecycle.refusal)
    registry.on_change(event_bus.on_change)
    if memory is not None:
        memory.freeze()
    is_shared = settings.workers.isolation == "none"
    workers = settings.workers
    bounds = ProcessLimits(
        idle=0 if is_shared else workers.idle_processes or min(4, os.cpu_count() or 1),
        calls=workers.calls_per_process,
        calls_before_restart=workers.calls_before_restart or (1 if workers.calls_per_process == 1 else None),
        take_timeout=settings.workers.process_timeout,
        setup_timeout=settings.start.setup_timeout,
        teardown_timeout=settings.shutdown.teardown_timeout,
        cancel_grace=settings.sessions.cancel_grace,
        readyz_timeout=settings.start.readyz_timeout,
        max_memory=settings.workers.max_memory_bytes,
        exit_grace=settings.shutdown.exit_grace,
    )
    pool = WorkerPool(
        registry,
        fork_server,
        template,
        settings.workers.process_start,
        bounds,
        shared=is_shared,
        lines_of=logs.of_session,
        emit=event_bus.emit,
    )

    def session_routes(capabilities: Capabilities, tokens: Tokens | None) -> list[BaseRoute]:
        return WorkerRoutes(pool, settings, tokens).routes()

    def build(routes: list[BaseRoute], missing: list[BaseRoute]) -> ASGIApp:
        warn_of_clashes(routes, pool.about.routes)
        return application.build_for_workers(
            routes,
            missing,
            noting_refusals(pool.answer),
            has_app=pool.about.has_app,
            passed_on=("/files",) if assembly.takes_uploads(settings.files, pool.about) else (),
        )

    count_processes = None if is_shared else lambda: pool.counts
    return Backend(pool, session_routes, build, WebSocketHandoff, pool.renew, count_processes)
