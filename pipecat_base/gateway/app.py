"""The gateway's application, in front of a pod in the same process. A pod without a gateway does not import it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp

from pipecat_base import LAUNCHER
from pipecat_base.api.clashes import warn_of_clashes
from pipecat_base.auth import host_and_origin
from pipecat_base.auth.keys import Keys
from pipecat_base.config.settings import Settings
from pipecat_base.errors import Refusal, UnknownAgent
from pipecat_base.gateway import error_format, pages
from pipecat_base.gateway.cloud_api.routes import READ_BY_PROGRAMS
from pipecat_base.gateway.dispatcher import Dispatcher
from pipecat_base.gateway.start import SESSION_ID_FIELD
from pipecat_base.server.error_responses import client_disconnected, refuse
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.pod import Pod

if TYPE_CHECKING:
    from pipecat_base.gateway.assembly import GatewayRoutes

OPENAPI = "/v1/openapi.json"  # "/openapi.json" is the bot's
# The page, its files, its requests every two seconds.
POLLED = ("/", "/page/", pages.CLIENT, "/sessions", "/status", *READ_BY_PROGRAMS)


def build(routes: GatewayRoutes, pod: Pod, settings: Settings, direct: ASGIApp, keys: Keys) -> ASGIApp:
    """Build the application: the gateway's routes, and for all other requests the pod's, behind their own checks."""
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
    # Functions and methods: older versions of FastAPI do not read the annotations of callable objects.
    named = [Depends(_agent_check(settings.gateway.agent_name))]
    bearer = Depends(HTTPBearer(auto_error=False))
    for router in routes.for_managers:
        app.include_router(router, dependencies=[bearer, Depends(keys.check_private), *named])
    for router in routes.for_clients:
        app.include_router(router, dependencies=[bearer, Depends(keys.check), *named])
    for router in routes.refusing:
        app.include_router(router, dependencies=[bearer, Depends(keys.check_private)])
    for router in routes.signed:
        app.include_router(router, dependencies=named)
    app.router.routes += routes.open
    # Not app.router.routes: FastAPI may hide there the routes of a router.
    routers = (*routes.for_managers, *routes.for_clients, *routes.refusing, *routes.signed)
    ours = [*(route for router in routers for route in router.routes), *routes.open]
    warn_of_clashes(ours, pod.about.routes)
    app.router.default = direct
    all_routes = list(app.router.routes)
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
        Dispatcher(with_cors, direct, all_routes, pod.about.routes, ours),
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


async def _refuse(connection: HTTPConnection, refusal: Refusal) -> JSONResponse | None:
    response = await refuse(connection, refusal)
    return None if response is None else error_format.of(refusal, LAUNCHER)
