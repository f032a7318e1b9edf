"""Addresses that requests come from: only what is one, whatever a header says."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
TRACE_HEADERS = (b"traceparent", b"tracestate")
"""https://www.w3.org/TR/trace-context/"""
PEER = "pipecat_base.peer"
"""In a scope: the connection's other end, as ``client`` has it."""


class ProxyHeaders:
    """uvicorn's own middleware, which takes any text for the caller's address; here it must be one.

    Args:
        trusted: Proxies, as uvicorn's ``forwarded_allow_ips`` has them.
    """

    def __init__(self, app: ASGIApp, trusted: list[str] | str) -> None:
        self._app = app
        self._believing: ASGIApp = ProxyHeadersMiddleware(self._check, trusted)  # type: ignore[arg-type, assignment]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[PEER] = scope.get("client")
        await self._believing(scope, receive, send)

    async def _check(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope["client"]
        if client != scope[PEER] and address(client[0]) is None:
            scope["client"] = scope[PEER]
        await self._app(scope, receive, send)


class TraceHeaders:
    """Surrounds all requests: whose trace they are part of counts only from callers who are trusted with it.

    A caller who names a trace also says that it is sampled, and so how many spans are exported.

    Args:
        trusted: Networks. Behind a proxy both its address and its caller's must be in one of them.
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
    """The address that the text is; None of anything else, and of one with a zone, which may be any text."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv4Address):
        return found
    return None if found.scope_id is not None else found.ipv4_mapped or found


def route(connection: HTTPConnection) -> list[Address]:
    """Addresses that a request came through, the last one first: behind a proxy of a private network, two of them."""
    client = connection.client
    # The zone of a peer's own address is the kernel's.
    peer = None if client is None else address(client.host.partition("%")[0])
    if peer is None:
        return []
    named = connection.headers.getlist("x-forwarded-for")[-1:]
    forwarded = address(named[0].rpartition(",")[2].strip()) if named else None
    return [peer] if forwarded in (None, peer) or not peer.is_private else [peer, forwarded]
