"""Forwarding of requests to the pod: another path, other headers, the same body and response."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipecat_base.auth.internal_headers import without_internal
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID

DROPPED_HEADERS = frozenset({b"host", b"content-length", b"authorization"})  # docs.pipecat.ai, Session API
NO_HEADERS: frozenset[bytes] = frozenset()  # for WebSockets: the pod checks the token in ``authorization``
# Not the keys that the gateway's own routing adds.
FORWARDED_SCOPE_KEYS = (
    "type",
    "asgi",
    "http_version",
    "method",
    "scheme",
    "client",
    "server",
    "state",
    "subprotocols",
    "extensions",
)


def forwarded(
    connection: HTTPConnection,
    raw_path: bytes,
    *,
    session_id: str | None = None,
    query: bytes | None = None,
    dropped: frozenset[bytes] = DROPPED_HEADERS,
) -> Scope:
    """Make the pod's scope for a request. Internal headers are always dropped, ``dropped`` are others in lower case."""
    scope = connection.scope
    headers = [header for header in without_internal(scope["headers"]) if header[0] not in dropped]
    if session_id is not None:
        headers.append((SESSION_ID.encode(), session_id.encode()))
    kept = {key: scope[key] for key in FORWARDED_SCOPE_KEYS if key in scope}
    return {
        **kept,
        "path": unquote_to_bytes(raw_path).decode(errors="replace"),
        "raw_path": raw_path,
        "root_path": "",
        "query_string": scope["query_string"] if query is None else query,
        "headers": headers,
    }


def rest_of_path(connection: HTTPConnection, parts: int) -> bytes:
    """Remove the first ``parts`` parts of the path; keeps its percent-encoding."""
    raw: bytes = connection.scope.get("raw_path") or connection.scope["path"].encode()
    pieces = raw.split(b"?")[0].split(b"/", parts + 1)
    return b"/" + (pieces[parts + 1] if len(pieces) > parts + 1 else b"")


class ForwardedResponse(Response):
    """Streams the pod's response. ``prefix`` is the part of the caller's path that the pod does not know."""

    def __init__(self, inside: ASGIApp, scope: Scope, session_id: str | None, prefix: str = "") -> None:
        super().__init__()
        self._prefix = prefix
        self._inside = inside
        self._scope = scope
        self._session_id = session_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        session_id = self._session_id
        if session_id is None:
            await self._inside(self._scope, receive, send)
            return

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault(SESSION_ID, session_id)
                if "location" in headers:
                    headers["location"] = self._for_caller(headers["location"])
            await send(message)

        with logger.contextualize(session_id=session_id):
            await self._inside(self._scope, receive, send_with_id)

    def _for_caller(self, location: str) -> str:
        """Convert the target of a redirect: the bot knows neither the caller's host nor the prefix."""
        try:
            parts = urlsplit(location)
            hostname, _ = parts.hostname, parts.port
        except ValueError:  # a host of "[", say
            return location
        is_ours = not parts.netloc or (parts.scheme, hostname, parts.port) == self._pods_address()
        if not is_ours or not parts.path.startswith("/") or parts.path.startswith(f"{self._prefix}/"):
            return location
        return urlunsplit(("", "", f"{self._prefix}{parts.path}", parts.query, parts.fragment))

    def _pods_address(self) -> tuple[str, str | None, int | None]:
        # The bot's framework uses it for absolute URLs, because the host header was dropped.
        host, port = self._scope.get("server") or ("", None)
        return self._scope.get("scheme", "http"), host, port
