"""The gateway: what stands in front of a pod on the platform, here in the same process.

It starts sessions, passes requests on to them, answers phone providers, checks keys and serves the page. Off in a pod,
where nothing of this package is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from feature_manager import FeatureManager
from pipecat_base.app import LAUNCHER, refuse, warn_of_clashes
from pipecat_base.errors import Refusal, Unauthorized, UnknownAgent
from pipecat_base.gateway import answers, pages, streams, telephony
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.invitations import Invitations
from pipecat_base.gateway.keys import Keys
from pipecat_base.gateway.pod import Pod
from pipecat_base.gateway.session_api import SessionApi
from pipecat_base.gateway.start import SESSION_ID, Starts
from pipecat_base.gateway.status import Status
from pipecat_base.gateway.webhooks import Webhooks
from pipecat_base.routes import requests
from pipecat_base.settings import Settings, is_local
from pipecat_base.tokens import Tokens

OPENAPI = "/v1/openapi.json"
"""Not at ``/openapi.json``: that is the bot's own."""


POLLED = ("/sessions", "/status")


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
    stream_path = _StreamPath(settings, tokens)
    starts = Starts(
        pod,
        settings,
        addresses,
        daily,
        invitations,
        tokens=tokens,
        stream_path=stream_path.without_token,
        has_uploads=has_uploads,
    )
    features = FeatureManager(settings, has_file_storage=has_file_storage)
    client = None if pages.client_folder() is None else pages.CLIENT
    phones = telephony.Telephony(pod, settings, addresses, stream_path=stream_path)
    webhooks = Webhooks(pod, daily, keys, dialin_secret=settings.dialin_secret, max_body_bytes=settings.max_body_bytes)

    app = FastAPI(title="pipecat-base", openapi_url=OPENAPI, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.add_exception_handler(Refusal, _refuse)  # type: ignore[arg-type]
    app.add_exception_handler(HTTPException, answers.of_http)
    named = [Depends(_AgentName(settings.agent_name))]
    keyed = [Depends(HTTPBearer(auto_error=False)), Depends(_KeyCheck(keys, _Hosts(settings))), *named]
    with_key = [starts.router(), SessionApi(pod).router()]
    with_key.append(Status(pod, bot, starts.transports, features.features, client).router())
    signed = [phones.router(), webhooks.router()]
    for router in with_key:
        app.include_router(router, dependencies=keyed)
    for router in signed:
        app.include_router(router, dependencies=named)
    others = pages.routes()
    others += streams.routes(pod, phones, invitations, tokens=tokens, agent_name=settings.agent_name)
    app.router.routes += others
    # Not the application's: FastAPI may hide those of a router.
    warn_of_clashes([*(route for router in (*with_key, *signed) for route in router.routes), *others], bots_routes)
    app.router.default = direct
    return CORSMiddleware(
        app,
        allow_origins=settings.allowed_origins or ("*",),
        allow_credentials=True,
        allow_methods=("*",),
        allow_headers=("*",),
        expose_headers=(SESSION_ID, requests.SESSION_ID, "retry-after"),
    )


class _KeyCheck:
    """A dependency of the routes that need a key."""

    def __init__(self, keys: Keys, hosts: _Hosts) -> None:
        self._keys = keys
        self._hosts = hosts

    async def __call__(self, request: Request) -> None:
        self._keys.check(request)
        self._hosts.check(request)


class _Hosts:
    """Keeps a gateway without keys to this machine: a tunnel, or a page whose name leads here, would open it to all."""

    def __init__(self, settings: Settings) -> None:
        self._anyone = bool(settings.public_api_keys) or settings.insecure
        self._public = urlsplit(settings.public_url or "").hostname

    def check(self, request: Request) -> None:
        host = request.url.hostname or ""
        if not (self._anyone or is_local(host) or host == self._public):
            raise Unauthorized(
                "This gateway has no keys, so it serves this machine alone: set PIPECAT_PUBLIC_API_KEYS, or "
                "PIPECAT_PUBLIC_URL to the address that is meant to reach it.",
                field="host",
            )


class _AgentName:
    """A dependency of the routes that may name an agent."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    async def __call__(self, request: Request) -> None:
        agent = request.path_params.get("agent")
        if agent is not None and self._name not in (None, agent):
            raise UnknownAgent("There is no agent of this name.", field="agent")


class _StreamPath:
    """Where a provider sends a call's audio: a pod with a token takes it through the gateway alone."""

    def __init__(self, settings: Settings, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._guarded = settings.pod_token is not None
        self._signed = settings.twilio_auth_token is not None

    def __call__(self, provider: str) -> str:
        if self._tokens is not None:
            return f"{self.without_token(provider)}/{self._tokens.mint()}"
        # Twilio signs the handshake of a stream: at this path it is checked.
        return "/ws/twilio" if provider == "twilio" and self._signed else self.without_token(provider)

    def without_token(self, provider: str) -> str:
        """To be followed by a slash and a token where one is needed."""
        return f"/ws/{provider}" if self._guarded else "/ws"


async def _refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    response = await refuse(connection, refusal)
    return None if response is None else answers.of(refusal, LAUNCHER)
