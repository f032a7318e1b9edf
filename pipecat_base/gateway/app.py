"""The gateway's application, in front of a pod in the same process. A pod without a gateway does not import it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
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

from pipecat_base import LAUNCHER
from pipecat_base.api.app import warn_of_clashes
from pipecat_base.auth import host_and_origin
from pipecat_base.auth.keys import Keys
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot.features import FeatureManager
from pipecat_base.config.settings import Settings
from pipecat_base.errors import Malformed, Refusal, UnknownAgent
from pipecat_base.gateway import error_format, pages, streams, telephony
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.cloud_api import CloudApi
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import SESSION_ID_FIELD, StartRoutes
from pipecat_base.gateway.status import StatusRoute
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.server.error_responses import client_disconnected, refuse, send_refusal
from pipecat_base.server.lifecycle import Lifecycle
from pipecat_base.server.paths import SESSION_ID, STARTS
from pipecat_base.server.request_path import check_slashes
from pipecat_base.sessions.pod import Pod

OPENAPI = "/v1/openapi.json"  # "/openapi.json" is the bot's
POLLED = ("/", "/page/", pages.CLIENT, "/sessions", "/status")  # the page, its files, its requests every two seconds


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
    """Build the application: the gateway's routes, and the pod's for all other requests.

    Args:
        inside: The pod's and the bot's routes, for requests that the gateway has checked.
        direct: The same routes, behind their own checks.
        tokens: Required by the pod's WebSockets; None if they require none.
        report_of: Gives the report of a session that ended recently.
        shows_bot_errors: True in development: callers may see the bot's exceptions.
    """
    telephony.require(settings.providers)
    addresses = Addresses(settings.gateway.public_url)
    daily = Daily(settings.providers.daily_api_key, settings.providers.daily_api_url, settings.sessions.max_seconds)
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
        name=name,
        log_folder=settings.logs.folder,
        shows_log=settings.gateway.has_keys or settings.gateway.serves_this_machine_only,
        stop=session_api.stop,
    )

    for_managers = [session_api.management(), cloud_api.management()]
    for_clients = [starts.router(), session_api.router(), status.router(), cloud_api.router()]
    signed = [phones.router(), webhooks.router()]
    # Functions and methods: older versions of FastAPI do not read the annotations of callable objects.
    named = [Depends(_agent_check(settings.gateway.agent_name))]
    bearer = Depends(HTTPBearer(auto_error=False))
    for router in for_managers:
        app.include_router(router, dependencies=[bearer, Depends(keys.check_private), *named])
    for router in for_clients:
        app.include_router(router, dependencies=[bearer, Depends(keys.check), *named])
    for router in signed:
        app.include_router(router, dependencies=named)
    others = pages.routes()
    others += streams.routes(
        inside, direct, phones, pending_sessions, tokens=tokens, agent_name=settings.gateway.agent_name
    )
    app.router.routes += others
    # Not app.router.routes: FastAPI may hide there the routes of a router.
    ours = [*(route for router in (*for_managers, *for_clients, *signed) for route in router.routes), *others]
    warn_of_clashes(ours, pod.about.routes)
    app.router.default = direct
    routes = list(app.router.routes)
    with_cors = CORSMiddleware(
        app,
        # Without keys, the origin guard has already refused pages of other machines.
        allow_origins=settings.websockets.allowed_origins or ("*",),
        # Any page may call, but without the browser's cookies and credentials.
        allow_credentials=bool(settings.websockets.allowed_origins),
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=(SESSION_ID_FIELD, SESSION_ID, "retry-after"),
    )
    return host_and_origin.of_gateway(
        _Dispatcher(with_cors, direct, routes, pod.about.routes, ours),
        settings.gateway,
        settings.websockets,
        error_format.of,
    )


def _agent_check(name: str | None) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        agent = request.path_params.get("agent")
        if agent is not None and name not in (None, agent):
            raise UnknownAgent("There is no agent of this name.", field="agent")

    return check


class _Dispatcher:
    """Sends requests to ``gateway``, which adds CORS, or to ``direct``. ``ours`` are the gateway's single routes."""

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
