"""Who may visit the gateway: by which name and from which page. Keys are for :mod:`pipecat_base.access.keys`.

Without keys a gateway is for this machine alone. Its address does not ensure that: a tunnel opens it to all, a name of
somebody's may lead here (DNS rebinding), and any page that is open in a browser here may send requests.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.access.local import HOST_HEADERS, name_is_local, serves_this_machine_alone
from pipecat_base.errors import Refusal, Unauthorized
from pipecat_base.paths import PROBES
from pipecat_base.refusals import LAUNCHER, refuse, turn_away
from pipecat_base.settings import Settings, is_local


class Visitors:
    """Surrounds the gateway and what is behind it.

    Args:
        answer: Makes the answer to a request that is refused, given the launcher's name.
    """

    def __init__(self, app: ASGIApp, settings: Settings, *, answer: Callable[[Refusal, str], Response]) -> None:
        self._app = app
        self._answer = answer
        self._only_local = serves_this_machine_alone(settings)
        self._origins: Collection[str] = frozenset(origin.lower() for origin in settings.allowed_origins)

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
        if not self._only_local:
            return None
        for header in HOST_HEADERS:
            if not all(name_is_local(value) for value in connection.headers.getlist(header)):
                return Unauthorized(
                    "This gateway has no keys, so it serves this machine alone: set PIPECAT_PUBLIC_API_KEYS, or say "
                    "--insecure.",
                    field=header,
                )
        return None

    def _refusal_of_origin(self, connection: HTTPConnection) -> Refusal | None:
        """Without keys nothing else would keep a page of another site from all that is here, reads too."""
        headers = connection.headers
        origin = headers.get("origin", "").lower()
        if not origin:
            # What a page embeds comes without an origin; a link that somebody follows makes a document of its own.
            is_link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") in (
                None,
                "document",
            )
            is_embedded = headers.get("sec-fetch-site") == "cross-site" and not is_link
            return _not_for_this_page("sec-fetch-site") if self._only_local and is_embedded else None
        if origin.partition("://")[2] == headers.get("host", "").lower() or origin in self._origins:
            return None
        if self._origins or (self._only_local and not is_local(_hostname(origin))):
            return _not_for_this_page("origin")
        return None


def _not_for_this_page(field: str) -> Refusal:
    return Unauthorized("Pages of this origin may not do this: set PIPECAT_ALLOWED_ORIGINS.", field=field)


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
