"""The gateway: what stands in front of a pod on the platform, here in the same process.

It starts sessions, passes requests on to them, answers phone providers, checks keys and serves the page. Off in a pod,
where nothing of this package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from feature_manager import FeatureManager
from pipecat_base.access.keys import Keys
from pipecat_base.access.tokens import Tokens
from pipecat_base.access.visitors import Visitors
from pipecat_base.app import warn_of_clashes
from pipecat_base.errors import Refusal, UnknownAgent
from pipecat_base.gateway import answers, pages, streams, telephony
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.invitations import Invitations
from pipecat_base.gateway.pod import Pod
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import ANSWERED_SESSION_ID, Starts
from pipecat_base.gateway.status import Status
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.paths import SESSION_ID, STARTS
from pipecat_base.refusals import LAUNCHER, gone, refuse
from pipecat_base.settings import Settings

OPENAPI = "/v1/openapi.json"
"""Not at ``/openapi.json``: that is the bot's own."""
POLLED = ("/sessions", "/status")
"""What the page asks for every two seconds."""


def build(
    pod: Pod,
    settings: Settings,
    direct: ASGIApp,
    *,
    bots_routes: Sequence[BaseRoute],
    bot: str,
    has_uploads: bool,
    has_file_storage: bool,
    tokens: Tokens | None,
) -> ASGIApp:
    """The application that answers what is the gateway's, and leaves the rest to the pod.

    Args:
        direct: Answers that rest: the pod for whoever does not come through the gateway.
        bots_routes: Those of ours that clash with one of these win, and the log says so.
        bot: The name of the bot's file.
        has_uploads: Whether the pod takes files.
        has_file_storage: Whether the bot has ``create_file_storage()``.
        tokens: Those that the pod's WebSockets ask for; None when they ask for none.
    """
    telephony.require(settings)
    keys = Keys(settings.public_api_keys)
    addresses = Addresses(settings.public_url)
    daily = Daily(settings.daily_api_key, settings.daily_api_url)
    invitations = Invitations()
    stream_path = streams.StreamPath(settings, tokens)
    starts = Starts(
        pod,
        settings,
        addresses,
        daily,
        invitations,
        tokens=tokens,
        stream_path=stream_path.without_token,
    )
    features = FeatureManager(settings, has_file_storage=has_file_storage)
    client = None if pages.client_folder() is None else pages.CLIENT
    phones = telephony.Telephony(pod, settings, addresses, stream_path=stream_path)
    webhooks = Webhooks(pod, daily, keys, dialin_secret=settings.dialin_secret, max_body_bytes=settings.max_body_bytes)

    app = FastAPI(title="pipecat-base", openapi_url=OPENAPI, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, _refuse)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, answers.of_http)
    app.add_exception_handler(ClientDisconnect, gone)
    # Methods, not objects that can be called: older versions of FastAPI do not read the annotations of those.
    named = [Depends(_AgentName(settings.agent_name).check)]
    keyed = [Depends(HTTPBearer(auto_error=False)), Depends(keys.check), *named]
    with_key = [starts.router(), SessionApi(pod, invitations, has_uploads=has_uploads).router()]
    with_key.append(Status(pod, bot, starts.transports, features.features, client).router())
    signed = [phones.router(), webhooks.router()]
    for router in with_key:
        app.include_router(router, dependencies=keyed)
    for router in signed:
        app.include_router(router, dependencies=named)
    others = pages.routes()
    others += streams.routes(pod, direct, phones, invitations, tokens=tokens, agent_name=settings.agent_name)
    app.router.routes += others
    # Not the application's: FastAPI may hide those of a router.
    warn_of_clashes([*(route for router in (*with_key, *signed) for route in router.routes), *others], bots_routes)
    app.router.default = direct
    routes = list(app.router.routes)
    with_cors = CORSMiddleware(
        app,
        allow_origins=settings.allowed_origins or ("*",),
        allow_credentials=True,
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=(ANSWERED_SESSION_ID, SESSION_ID, "retry-after"),
    )
    return Visitors(_Front(with_cors, direct, routes, bots_routes), settings, answer=answers.of)


class _AgentName:
    """Of the routes that may name an agent."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    async def check(self, request: Request) -> None:
        agent = request.path_params.get("agent")
        if agent is not None and self._name not in (None, agent):
            raise UnknownAgent("There is no agent of this name.", field="agent")


class _Front:
    """Leads to the gateway or past it. CORS is for the gateway and for what starts sessions: the bot's own is its own.

    Args:
        gateway: With CORS around it.
        direct: What is behind it.
    """

    def __init__(
        self,
        gateway: ASGIApp,
        direct: ASGIApp,
        routes: Sequence[BaseRoute],
        bots_routes: Sequence[BaseRoute],
    ) -> None:
        self._gateway = gateway
        self._direct = direct
        self._routes = routes
        self._bots_routes = bots_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
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
    return None if response is None else answers.of(refusal, LAUNCHER)
