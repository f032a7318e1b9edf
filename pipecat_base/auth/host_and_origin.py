"""Checks the host name and the page that a request comes from.

A pod on a loopback address, and a gateway without keys, serve this machine only. The address does not ensure that: a
tunnel opens it to everyone, a stranger's name may resolve to it (DNS rebinding), and any page open in a browser here
may send requests and open WebSockets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base import LAUNCHER
from pipecat_base.config.hosts import HOST_HEADERS, is_local, name_is_local, page_is_local
from pipecat_base.config.settings import GatewaySettings, WebSocketSettings
from pipecat_base.errors import Refusal, Unauthorized
from pipecat_base.server.error_responses import refuse, send_refusal
from pipecat_base.server.paths import PROBES, SESSION_ID

NO_KEYS_REASON = (
    "This gateway has no keys, so it serves this machine only: set PIPECAT_PUBLIC_API_KEYS, or pass --insecure."
)
LOOPBACK_REASON = (
    "This pod listens on a loopback address, so it serves localhost only: set PIPECAT_PUBLIC_URL to the "
    "address that a proxy forwards."
)


def of_gateway(
    app: ASGIApp,
    gateway: GatewaySettings,
    websockets: WebSocketSettings,
    answer: Callable[[Refusal, str], Response],
) -> HostAndOriginGuard:
    only_local = gateway.serves_this_machine_only
    return HostAndOriginGuard(
        app,
        gateway,
        websockets,
        local_only_reason=NO_KEYS_REASON if only_local else None,
        foreign_pages=not only_local,
        answer=answer,
    )


def of_pod(app: ASGIApp, host: str, gateway: GatewaySettings, websockets: WebSocketSettings) -> HostAndOriginGuard:
    """Guard a pod: phone providers and gateways send no origin, so a page that names no session is a stranger's."""
    only_local = is_local(host) and gateway.public_url is None
    return HostAndOriginGuard(
        app,
        gateway,
        websockets,
        local_only_reason=LOOPBACK_REASON if only_local else None,
        foreign_pages=False,
        answer=_plain,
    )


def _plain(refusal: Refusal, launcher: str) -> Response:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers(launcher))


class HostAndOriginGuard:
    """Refuses requests by host name and origin.

    With a ``local_only_reason`` only names of this machine are served. ``foreign_pages`` allows every origin, unless
    PIPECAT_ALLOWED_ORIGINS is set.
    """

    def __init__(
        self,
        app: ASGIApp,
        gateway: GatewaySettings,
        websockets: WebSocketSettings,
        *,
        local_only_reason: str | None,
        foreign_pages: bool,
        answer: Callable[[Refusal, str], Response],
    ) -> None:
        self._app = app
        self._answer = answer
        self._local_only_reason = local_only_reason
        self._foreign_pages = foreign_pages
        self._public_hosts = () if gateway.public_url is None else (urlsplit(gateway.public_url).netloc.lower(),)
        self._origins: Collection[str] = frozenset(origin.lower() for origin in websockets.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        connection = HTTPConnection(scope)
        if scope["path"] not in PROBES:
            refusal = self._host_refusal(connection) or self._origin_refusal(connection)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(connection, refusal)  # for the log
            await self._answer(refusal, LAUNCHER)(scope, receive, send)
        else:
            await send_refusal(refusal, scope, receive, send)

    def _host_refusal(self, connection: HTTPConnection) -> Refusal | None:
        if self._local_only_reason is not None:
            for header in HOST_HEADERS:
                if not all(name_is_local(value) for value in connection.headers.getlist(header)):
                    return Unauthorized(self._local_only_reason, field=header)
        return None

    def _origin_refusal(self, connection: HTTPConnection) -> Refusal | None:
        headers = connection.headers
        if SESSION_ID in headers and not self._foreign_pages:
            # The platform forwards requests of its Session API with the session's id. A page cannot send this header:
            # WebSockets have no custom headers, and other requests need a preflight.
            return None
        origins = [origin.lower() for origin in headers.getlist("origin") if origin]
        if not origins:
            # Embedded resources are requested without an origin; a followed link opens a document of its own.
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
                None,
                "document",
            )
            is_embedded = headers.get("sec-fetch-site", "").lower() == "cross-site" and not is_link
            return _not_for_this_page("sec-fetch-site") if self._local_only_reason is not None and is_embedded else None
        hosts = [name.lower() for header in HOST_HEADERS for name in headers.getlist(header)]
        if all(self._is_allowed(origin, hosts) for origin in origins):
            return None
        return _not_for_this_page("origin")

    def _is_allowed(self, origin: str, hosts: list[str]) -> bool:
        host = origin.partition("://")[2]
        if host in (*hosts, *self._public_hosts) or origin in self._origins:
            return True
        if self._origins:
            return False
        # A page on another port of this machine is the developer's.
        is_local_page = page_is_local(origin) and all(map(name_is_local, hosts))
        return self._foreign_pages or is_local_page


def _not_for_this_page(field: str) -> Refusal:
    return Unauthorized("Pages of this origin may not do this: set PIPECAT_ALLOWED_ORIGINS.", field=field)
