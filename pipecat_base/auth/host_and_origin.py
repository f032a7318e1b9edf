"""Who may visit: by which name and from which page. Keys are for :mod:`pipecat_base.auth.keys`.

A pod that listens on this machine's own address, and a gateway without keys, are for this machine alone. The address
does not ensure that: a tunnel opens it to all, a stranger's name may lead here (DNS rebinding), and any page that is
open in a browser here may send requests and open WebSockets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.config.hosts import HOST_HEADERS, is_local, name_is_local, page_is_local
from pipecat_base.config.settings import Settings
from pipecat_base.errors import LAUNCHER, Refusal, Unauthorized
from pipecat_base.server.error_responses import refuse, turn_away
from pipecat_base.server.paths import PROBES, SESSION_ID

NO_KEYS = "This gateway has no keys, so it serves this machine alone: set PIPECAT_PUBLIC_API_KEYS, or say --insecure."
LOOPBACK = (
    "This pod listens on this machine's own address, so it serves localhost alone: set PIPECAT_PUBLIC_URL to the "
    "address that a proxy passes on."
)


def of_gateway(app: ASGIApp, settings: Settings, answer: Callable[[Refusal, str], Response]) -> HostAndOriginGuard:
    """Around a gateway: with keys, pages of any origin may call it."""
    only_local = settings.gateway.serves_this_machine_only
    return HostAndOriginGuard(
        app, settings, why_local=NO_KEYS if only_local else None, foreign_pages=not only_local, answer=answer
    )


def of_pod(app: ASGIApp, settings: Settings) -> HostAndOriginGuard:
    """Around a pod: phone providers and gateways send no origin, so a page that names no session is a stranger's."""
    only_local = is_local(settings.server.host) and settings.gateway.public_url is None
    return HostAndOriginGuard(
        app, settings, why_local=LOOPBACK if only_local else None, foreign_pages=False, answer=_plain
    )


def _plain(refusal: Refusal, launcher: str) -> Response:
    return JSONResponse(refusal.body(), refusal.status, refusal.headers(launcher))


class HostAndOriginGuard:
    """Surrounds an application.

    Args:
        why_local: Why only names of this machine are served; None where others are, too.
        foreign_pages: Whether pages of origins that nothing names may send requests.
        answer: Makes the answer to a request that is refused, given the launcher's name.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: Settings,
        *,
        why_local: str | None,
        foreign_pages: bool,
        answer: Callable[[Refusal, str], Response],
    ) -> None:
        self._app = app
        self._answer = answer
        self._why_local = why_local
        self._foreign_pages = foreign_pages
        self._public_hosts = (
            () if settings.gateway.public_url is None else (urlsplit(settings.gateway.public_url).netloc.lower(),)
        )
        self._origins: Collection[str] = frozenset(origin.lower() for origin in settings.websockets.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        connection = HTTPConnection(scope)
        if scope["path"] not in PROBES:
            refusal = self._refusal_of_host(connection) or self._refusal_of_origin(connection)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await refuse(connection, refusal)  # for the log
            await self._answer(refusal, LAUNCHER)(scope, receive, send)
        else:
            await turn_away(refusal, scope, receive, send)

    def _refusal_of_host(self, connection: HTTPConnection) -> Refusal | None:
        if self._why_local is not None:
            for header in HOST_HEADERS:
                if not all(name_is_local(value) for value in connection.headers.getlist(header)):
                    return Unauthorized(self._why_local, field=header)
        return None

    def _refusal_of_origin(self, connection: HTTPConnection) -> Refusal | None:
        """A browser names the page in each WebSocket's handshake, each POST and each request to another origin."""
        headers = connection.headers
        if SESSION_ID in headers and not self._foreign_pages:
            # The platform passes on what a client of its Session API has sent, and says for which session. A page
            # cannot: WebSockets carry no such header, and before another request a browser asks with OPTIONS.
            return None
        origins = [origin.lower() for origin in headers.getlist("origin") if origin]
        if not origins:
            # What a page embeds comes without an origin; a link that somebody follows makes a document of its own.
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
                None,
                "document",
            )
            is_embedded = headers.get("sec-fetch-site", "").lower() == "cross-site" and not is_link
            return _not_for_this_page("sec-fetch-site") if self._why_local is not None and is_embedded else None
        hosts = [name.lower() for header in HOST_HEADERS for name in headers.getlist(header)]
        if all(self._is_ours(origin, hosts) for origin in origins):
            return None
        return _not_for_this_page("origin")

    def _is_ours(self, origin: str, hosts: list[str]) -> bool:
        host = origin.partition("://")[2]
        if host in (*hosts, *self._public_hosts) or origin in self._origins:
            return True
        if self._origins:
            return False
        # Another port of this machine: whoever develops a page has it there.
        is_local_page = page_is_local(origin) and all(map(name_is_local, hosts))
        return self._foreign_pages or is_local_page


def _not_for_this_page(field: str) -> Refusal:
    return Unauthorized("Pages of this origin may not do this: set PIPECAT_ALLOWED_ORIGINS.", field=field)
