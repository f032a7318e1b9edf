"""Client addresses, from the connection and from the headers of trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRACE_HEADERS = (b"traceparent", b"tracestate")  # https://www.w3.org/TR/trace-context/
PEER = "pipecat_base.peer"  # scope key: address of the connection's peer, in the form of ``client``


class ProxyHeaders:
    """uvicorn's middleware, which accepts any text as the client's address; this one accepts only IP addresses."""

    def __init__(self, app: ASGIApp, trusted: list[str] | str) -> None:
        self._app = app
        self._trusting: ASGIApp = ProxyHeadersMiddleware(self._check, trusted)  # type: ignore[arg-type, assignment]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = scope.get("client")
        await self._trusting(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"]
        if client != scope[PEER] and address(client[0]) is None:
            scope["client"] = scope[PEER]
        await self._app(scope, receive, send)


class TraceHeaders:
    """Drops trace headers of callers outside ``trusted`` networks: a sampled trace makes this process export spans.

    Behind a proxy, both the proxy's address and its caller's must be trusted.
    """

    def __init__(self, app: ASGIApp, trusted: Sequence[Network]) -> None:
        self._app = app
        self._trusted = trusted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._trusts(route(HTTPConnection(scope))):
            headers = [header for header in scope["headers"] if header[0] not in TRACE_HEADERS]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)

    def _trusts(self, addresses: list[Address]) -> bool:
        return bool(addresses) and all(any(found in network for network in self._trusted) for found in addresses)


def address(text: str) -> Address | None:
    """Parse an IP address; None for anything else, and for one with a zone, which may be any text."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    return None if found.scope_id is not None else found.ipv4_mapped or found


def route(connection: HTTPConnection) -> list[Address]:
    """Addresses that a request passed through, the last hop first."""
    client = connection.client
    # The kernel adds a zone to a link-local peer address.
    peer = None if client is None else address(client.host.partition("%")[0])
    if peer is None:
        return []
    named = connection.headers.getlist("x-forwarded-for")[-1:]
    forwarded = address(named[0].rpartition(",")[2].strip()) if named else None
    return [peer] if forwarded in (None, peer) or not peer.is_private else [peer, forwarded]
