"""The routes that callers reach, and the guards around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from pipecat_base.api import app as application
from pipecat_base.api import assembly
from pipecat_base.api.capabilities import Capabilities, CapabilitiesRoute
from pipecat_base.api.whatsapp_calls import WhatsApp
from pipecat_base.auth import host_and_origin
from pipecat_base.auth.internal_headers import InternalHeaders
from pipecat_base.auth.keys import KeyGuard, Keys
from pipecat_base.auth.origins import OriginGuard
from pipecat_base.auth.pod_token import PodTokenGuard
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import Settings
from pipecat_base.server.client_address import TraceHeaders
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.paths import STARTS, STREAMS, STREAMS_WITH_TOKEN
from pipecat_base.sessions.pod import Pod

if TYPE_CHECKING:
    from pipecat_base.gateway.pending_sessions import PendingSessions
    from pipecat_base.launcher.backend import Backend
    from pipecat_base.launcher.telemetry import Telemetry

STARTUP_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class Frontend:
    """The outermost application, and state that outlives a reload."""

    whatsapp: WhatsApp | None
    entrance: application.EntryMiddleware
    tokens: Tokens | None
    pending_sessions: PendingSessions | None


def frontend(
    settings: Settings,
    backend: Backend,
    lifecycle: Lifecycle,
    telemetry: Telemetry,
    before: Frontend | None = None,
    *,
    shows_bot_errors: bool = False,
    is_dev: bool = False,
) -> Frontend:
    """Put the launcher's routes on the bot's app, and guards around them.

    Args:
        before: The frontend that this one replaces: its tokens and pending sessions are kept.
        shows_bot_errors: Callers see the bot's exceptions: they are the developers.
    """
    pod = backend.pod
    tokens = Tokens(settings.websockets.secret) if settings.websockets.auth == "token" else None
    calls, pending_sessions = assembly.whatsapp_calls(settings.whatsapp, pod), None
    if before is not None:
        tokens, pending_sessions = before.tokens, before.pending_sessions
        calls = before.whatsapp if calls is not None and before.whatsapp is not None else calls
    elif settings.gateway.is_enabled:
        from pipecat_base.gateway.pending_sessions import PendingSessions

        pending_sessions = PendingSessions()
    capabilities = Capabilities(pod.capability_problems)
    routes: list[BaseRoute] = [*assembly.health_routes(settings, pod, lifecycle)]
    routes += backend.session_routes(capabilities, tokens)
    if calls is not None:
        from pipecat_base.api.whatsapp import WhatsAppRoutes  # no other bot waits for its imports

        routes += WhatsAppRoutes(
            calls,
            app_secret=settings.whatsapp.app_secret or "",
            verification_tokens=_verification_tokens(settings),
            max_body_bytes=settings.limits.max_body_bytes,
        ).routes()
    missing = assembly.missing_routes(settings, pod.about, takes_whatsapp=calls is not None)
    inside = backend.build(routes, missing)
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
        telemetry,
        shows_bot_errors=shows_bot_errors,
        is_dev=is_dev,
    )
    return Frontend(calls, entrance, tokens, pending_sessions)


def _verification_tokens(settings: Settings) -> tuple[str, ...]:
    """Texts with which Meta may verify the webhook; on the platform it is the public API key."""
    own = settings.whatsapp.verification_token
    return settings.gateway.public_api_keys if own is None else (own, *settings.gateway.public_api_keys)


def _entrance(
    settings: Settings,
    pod: Pod,
    inside: ASGIApp,
    ours: list[BaseRoute],
    lifecycle: Lifecycle,
    capabilities: Capabilities,
    tokens: Tokens | None,
    pending_sessions: PendingSessions | None,
    telemetry: Telemetry,
    *,
    shows_bot_errors: bool,
    is_dev: bool,
) -> application.EntryMiddleware:
    # A gateway stands between callers and the pod.
    direct: ASGIApp = CapabilitiesRoute(inside, capabilities)
    keys = Keys(settings.gateway.public_api_keys, settings.gateway.private_api_keys)
    if settings.gateway.is_enabled and keys.are_needed:
        direct = InternalHeaders(direct, settings.gateway.pod_token)
    if settings.gateway.pod_token is not None:
        streams = STREAMS if tokens is None else STREAMS + STREAMS_WITH_TOKEN
        direct = PodTokenGuard(direct, settings.gateway.pod_token, STARTS, streams)
    elif settings.gateway.is_enabled and keys.are_needed:
        direct = PodTokenGuard(direct, None, STARTS)
    if pending_sessions is None:
        direct = _guarded(
            host_and_origin.of_pod(direct, settings.server.host, settings.gateway, settings.websockets), settings
        )
        return application.EntryMiddleware(direct, on_refusal=telemetry.event_bus.on_refusal)
    from pipecat_base.gateway import app as gateway  # a pod does not import it
    from pipecat_base.gateway.assembly import gateway_routes

    if keys.are_needed:
        direct = KeyGuard(direct, keys, ours, settings.gateway.open_routes)
    has_uploads = assembly.takes_uploads(settings.files, pod.about)
    routes = gateway_routes(
        pod,
        settings,
        inside,
        direct,
        lifecycle,
        pending_sessions,
        keys=keys,
        has_uploads=has_uploads,
        tokens=tokens,
        report_of=lambda session_id: None if telemetry.reports is None else telemetry.reports.get(session_id),
        resources_of=lambda session_id: None if telemetry.resources is None else telemetry.resources.get(session_id),
        shows_bot_errors=shows_bot_errors,
        is_dev=is_dev,
    )
    app = gateway.build(routes, pod, settings, direct, keys)
    return application.EntryMiddleware(
        _guarded(app, settings),
        startup_wait=STARTUP_WAIT_SECONDS,
        polled=gateway.POLLED,
        on_refusal=telemetry.event_bus.on_refusal,
    )


def _guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    if settings.websockets.allowed_origins:
        app = OriginGuard(app, settings.websockets.allowed_origins)
    trusted = settings.telemetry.trust_traceparent
    if trusted is None and settings.gateway.is_enabled and settings.gateway.has_keys:
        trusted = ()
    return app if trusted is None else TraceHeaders(app, trusted)
