"""A request on its way from the gateway to the pod: another path, other headers, the same body and answer."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from starlette.requests import HTTPConnection
from starlette.types import Scope

from pipecat_base.auth.internal_headers import without_internal
from pipecat_base.server.paths import SESSION_ID

DROPPED = frozenset({b"host", b"content-length", b"authorization"})
"""Of requests: as on the platform (docs.pipecat.ai, Session API)."""
NOTHING: frozenset[bytes] = frozenset()
"""Of WebSockets: their ``authorization`` is a token for the pod to check."""


def forwarded(
    connection: HTTPConnection,
    raw_path: bytes,
    *,
    session_id: str | None = None,
    query: bytes | None = None,
    dropped: frozenset[bytes] = DROPPED,
) -> Scope:
    """The scope under which the pod serves this request.

    Args:
        raw_path: Percent-encoded.
        session_id: The session that it belongs to.
        query: Takes the place of the query string.
        dropped: Headers, in lower case. Internal ones are dropped in any case.
    """
    scope = connection.scope
    headers = [header for header in without_internal(scope["headers"]) if header[0] not in dropped]
    if session_id is not None:
        headers.append((SESSION_ID.encode(), session_id.encode()))
    kept = {key: scope[key] for key in _KEPT if key in scope}
    return {
        **kept,
        "path": unquote_to_bytes(raw_path).decode(errors="replace"),
        "raw_path": raw_path,
        "root_path": "",
        "query_string": scope["query_string"] if query is None else query,
        "headers": headers,
    }


def rest_of_path(connection: HTTPConnection, parts: int) -> bytes:
    """The path after its first ``parts`` parts, percent-encoded as it came."""
    raw: bytes = connection.scope.get("raw_path") or connection.scope["path"].encode()
    pieces = raw.split(b"?")[0].split(b"/", parts + 1)
    return b"/" + (pieces[parts + 1] if len(pieces) > parts + 1 else b"")


_KEPT = (
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
"""Not what the gateway's own routing has added."""
