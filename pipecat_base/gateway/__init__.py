"""The gateway: what stands in front of a pod on the platform, here in the same process.

It starts sessions, passes requests on to them, answers phone providers, checks keys and serves the page. Off in a pod,
where nothing of this package is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.api.app import warn_of_clashes
from pipecat_base.auth import host_and_origin
from pipecat_base.auth.keys import Keys
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot.features import FeatureManager
from pipecat_base.config.settings import Settings
from pipecat_base.errors import LAUNCHER, Malformed, Refusal, UnknownAgent
from pipecat_base.gateway import error_format, pages, streams, telephony
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.agents import Agents
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import ANSWERED_SESSION_ID, Starts
from pipecat_base.gateway.status import StatusRoute
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.server.error_responses import client_disconnected, refuse, send_refusal
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.paths import SESSION_ID, STARTS
from pipecat_base.server.request_path import check_slashes
from pipecat_base.sessions.pod import Pod

OPENAPI = "/v1/openapi.json"
"""Not at ``/openapi.json``: that is the bot's own."""
POLLED = ("/", "/page/", pages.CLIENT, "/sessions", "/status")
"""The page, its files, and what it asks for every two seconds."""


def build(
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
    shows_bot_errors: bool,
) -> ASGIApp:
    """The application that answers what is the gateway's, and leaves the rest to the pod.

    Args:
        inside: The pod's own routes and the bot's, for whoever comes through the gateway.
        direct: The same for whoever does not.
        pending_sessions: What ``/start`` has promised.
        keys: Those that are asked for.
        has_uploads: Whether files may be taken.
        tokens: Those that the pod's WebSockets ask for; None when they ask for none.
        report_of: Gives the report of a session that has ended lately.
        shows_bot_errors: Whether callers may see what the bot raised, and where.
    """
    telephony.require(settings)
    addresses = Addresses(settings.gateway.public_url)
    daily = Daily(settings.providers.daily_api_key, settings.providers.daily_api_url, settings.sessions.max_seconds)
    stream_path = streams.StreamPath(settings, tokens)
    starts = Starts(
        pod,
        settings,
        addresses,
        daily,
        pending_sessions,
        tokens=tokens,
        stream_path=stream_path.without_token,
    )
    features = FeatureManager(settings, has_file_storage=pod.about.has_file_storage)
    client = None if pages.client_folder() is None else pages.CLIENT
    phones = telephony.Telephony(pod.registry, settings, addresses, stream_path=stream_path)
    webhooks = Webhooks(
        pod,
        inside,
        daily,
        keys,
        dialin_secret=settings.providers.dialin_secret,
        max_body_bytes=settings.limits.max_body_bytes,
    )

    app = FastAPI(
        title="pipecat-base",
        openapi_url=OPENAPI,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Its spans would have query strings, and with them bodies and tokens. Older versions ignore this.
        telemetry={"tracing": False},
    )
    app.add_exception_handler(Refusal, _refuse)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, error_format.of_http)
    app.add_exception_handler(ClientDisconnect, client_disconnected)
    # Methods, not objects that can be called: older versions of FastAPI do not read the annotations of those.
    named = [Depends(_AgentName(settings.gateway.agent_name).check)]
    bearer = Depends(HTTPBearer(auto_error=False))
    keyed = [bearer, Depends(keys.check), *named]
    session_api = SessionApi(
        pod.registry,
        inside,
        pending_sessions,
        has_uploads=has_uploads,
        report_of=report_of,
        outdated=pod.outdated,
        shows_bot_errors=shows_bot_errors,
    )
    with_key = [starts.router(), session_api.router()]
    status = StatusRoute(
        lifecycle,
        pod.registry,
        pod.about.file,
        starts.transports,
        features.features,
        client,
        shows_bot_errors=shows_bot_errors,
    )
    with_key.append(status.router())
    signed = [phones.router(), webhooks.router()]
    name = settings.gateway.agent_name or PurePath(pod.about.file).stem
    agents = Agents(
        pod.registry,
        name=name,
        log_folder=settings.logs.folder,
        shows_log=settings.gateway.has_keys or settings.gateway.serves_this_machine_only,
        stop=session_api.stop,
    )
    management = [session_api.management(), agents.router()]
    for router in management:
        app.include_router(router, dependencies=[bearer, Depends(keys.check_private), *named])
    for router in with_key:
        app.include_router(router, dependencies=keyed)
    for router in signed:
        app.include_router(router, dependencies=named)
    others = pages.routes()
    others += streams.routes(
        inside, direct, phones, pending_sessions, tokens=tokens, agent_name=settings.gateway.agent_name
    )
    app.router.routes += others
    # Not the application's: FastAPI may hide those of a router.
    ours = [*(route for router in (*management, *with_key, *signed) for route in router.routes), *others]
    warn_of_clashes(ours, pod.about.routes)
    app.router.default = direct
    routes = list(app.router.routes)
    with_cors = CORSMiddleware(
        app,
        # Without keys only pages of this machine come so far.
        allow_origins=settings.websockets.allowed_origins or ("*",),
        # Any page may be let in, but not with what a browser knows of its user.
        allow_credentials=bool(settings.websockets.allowed_origins),
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=(ANSWERED_SESSION_ID, SESSION_ID, "retry-after"),
    )
    return host_and_origin.of_gateway(
        _Front(with_cors, direct, routes, pod.about.routes, ours), settings, error_format.of
    )


class _AgentName:
    """Of the routes that may name an agent."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    async def check(self, request: Request) -> None:
        agent = request.path_params.get("agent")
        if agent is not None and self._name not in (None, agent):
            raise UnknownAgent("There is no agent of this name.", field="agent")


class _Front:
    """Leads to the gateway, or directly to the pod. CORS is for the gateway, and for what starts sessions.

    Args:
        gateway: With CORS around it.
        direct: What is behind it.
        ours: The gateway's own routes, those of its routers one by one.
    """

    def __init__(
        self,
        gateway: ASGIApp,
        direct: ASGIApp,
        routes: Sequence[BaseRoute],
        bots_routes: Sequence[BaseRoute],
        ours: Sequence[BaseRoute],
    ) -> None:
        self._gateway = gateway
        self._direct = direct
        self._routes = routes
        self._bots_routes = bots_routes
        self._ours = ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_slashes(scope, self._ours)
        except Malformed as refusal:
            await send_refusal(refusal, scope, receive, send)
            return
        matches = [route.matches(scope)[0] for route in self._routes]
        if scope["path"] in STARTS or Match.FULL in matches:
            is_ours = True
        elif Match.PARTIAL in matches:  # another method: a preflight, or the bot's own
            is_ours = not any(route.matches(scope)[0] is Match.FULL for route in self._bots_routes)
        else:
            is_ours = False
        await (self._gateway if is_ours else self._direct)(scope, receive, send)


async def _refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    response = await refuse(connection, refusal)
    return None if response is None else error_format.of(refusal, LAUNCHER)
