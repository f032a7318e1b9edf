"""Puts together the gateway's routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fastapi import APIRouter
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from pipecat_base.auth.keys import Keys
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot.features import FeatureManager
from pipecat_base.config.settings import Settings
from pipecat_base.gateway import pages, streams, telephony
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.cloud_api.routes import CloudApi
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import StartRoutes
from pipecat_base.gateway.status import StatusRoute
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.sessions.pod import Pod
from pipecat_base.telemetry.resources import ResourceSeries


@dataclass(frozen=True)
class GatewayRoutes:
    """The gateway's routes, by who may call them."""

    for_managers: list[APIRouter]
    for_clients: list[APIRouter]
    refusing: list[APIRouter]
    """For managers too, after every other route."""
    signed: list[APIRouter]
    open: list[BaseRoute]


def gateway_routes(
    pod: Pod,
    settings: Settings,
    inside: ASGIApp,
    direct: ASGIApp,
    lifecycle: Lifecycle,
    pending_sessions: PendingSessions,
    *,
    keys: Keys,
    has_uploads: bool,
    tokens: Tokens | None,
    report_of: Callable[[str], Mapping[str, Any] | None],
    resources_of: Callable[[str], ResourceSeries | None],
    shows_bot_errors: bool,
    is_dev: bool,
) -> GatewayRoutes:
    """Build the routes.

    Args:
        inside: The pod's and the bot's routes, for requests that the gateway has checked.
        direct: The same routes, behind their own checks.
        tokens: Required by the pod's WebSockets; None if they require none.
        report_of: Gives the report of a session that ended recently.
        resources_of: Gives what a session uses, or used if it ended recently.
        shows_bot_errors: True in development: callers may see the bot's exceptions.
        is_dev: Unknown fields of `/start` are refused.
    """
    telephony.require(settings.providers)
    addresses = Addresses(settings.gateway.public_url)
    daily = Daily(
        settings.providers.daily_api_key,
        settings.providers.daily_api_url,
        settings.sessions.max_seconds,
        room_url=settings.providers.daily_room_url or settings.providers.daily_sample_room_url,
    )
    stream_path = streams.StreamPath(settings.gateway, settings.providers, tokens)
    starts = StartRoutes(
        pod,
        settings.providers,
        addresses,
        daily,
        pending_sessions,
        max_body_bytes=settings.limits.max_body_bytes,
        tokens=tokens,
        stream_path=stream_path.without_token,
        default_transport=settings.gateway.default_transport,
        is_dev=is_dev,
    )
    features = FeatureManager(settings, has_file_storage=pod.about.has_file_storage)
    client = None if pages.client_folder() is None else pages.CLIENT
    phones = telephony.Telephony(
        pod.registry,
        settings.providers,
        addresses,
        max_body_bytes=settings.limits.max_body_bytes,
        needs_tokens=settings.websockets.auth == "token",
        stream_path=stream_path,
    )
    webhooks = Webhooks(
        pod,
        inside,
        daily,
        keys,
        dialin_secret=settings.providers.dialin_secret,
        max_body_bytes=settings.limits.max_body_bytes,
    )
    session_api = SessionApi(
        pod.registry,
        inside,
        pending_sessions,
        has_uploads=has_uploads,
        report_of=report_of,
        outdated=pod.outdated_sessions,
        shows_bot_errors=shows_bot_errors,
    )
    status = StatusRoute(
        lifecycle,
        pod.about.file,
        starts.transports,
        features.features,
        client,
        shows_bot_errors=shows_bot_errors,
    )
    name = settings.gateway.agent_name or PurePath(pod.about.file).stem
    cloud_api = CloudApi(
        lifecycle,
        pod.registry,
        name,
        max_session_seconds=settings.sessions.max_seconds,
        resources_of=resources_of,
        log_folder=settings.logs.folder,
        shows_logs=settings.gateway.has_keys or settings.gateway.serves_this_machine_only,
        stop=session_api.stop,
    )

    for_managers = [session_api.management(), cloud_api.management()]
    for_clients = [starts.router(), session_api.router(), status.router(), cloud_api.router()]
    refusing = [cloud_api.refusals()]
    signed = [phones.router(), webhooks.router()]
    others = pages.routes()
    others += streams.routes(
        inside, direct, phones, pending_sessions, tokens=tokens, agent_name=settings.gateway.agent_name
    )
    return GatewayRoutes(for_managers, for_clients, refusing, signed, others)
