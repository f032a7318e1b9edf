"""Trace headers are trusted by the addresses that a request passed through."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from pipecat_base.config.settings import Settings
from pipecat_base.server.client_address import TraceHeaders


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "counts"),
    [
        ("10.0.0.0/8", "10.0.0.5", [], True),
        ("10.0.0.0/8", "10.0.0.5", ["203.0.113.5"], False),
        ("10.0.0.0/8", "10.0.0.5", ["10.0.0.7", "203.0.113.5"], False),
        ("10.0.0.0/8", "10.0.0.5", ["10.0.0.7, 203.0.113.5"], False),
        ("10.0.0.0/8", "10.0.0.5", ["203.0.113.5, 10.0.0.7"], True),
        ("203.0.113.5", "10.0.0.5", ["203.0.113.5"], False),
        ("203.0.113.5,10.0.0.5", "10.0.0.5", ["203.0.113.5"], True),
        ("10.0.0.0/8", "203.0.113.5", ["10.0.0.7"], False),
        ("10.0.0.0/8", "::ffff:10.0.0.5", [], True),
        ("fe80::/10", "fe80::1%eth0", [], True),
        ("*", "203.0.113.5", [], True),
        ("*", "2001:db8::1", ["10.0.0.7"], True),
        ("10.0.0.0/8", "no address", [], False),
        ("", "127.0.0.1", [], True),
    ],
)
def test_a_traceparent_counts_if_all_addresses_are_trusted(
    trusted: str, peer: str, forwarded: list[str], counts: bool
) -> None:
    networks = Settings.load({"PIPECAT_TRUST_TRACEPARENT": trusted}).telemetry.trust_traceparent
    found: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope)

    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    scope: Any = {
        "type": "http",
        "client": (peer, 1),
        "headers": [*headers, (b"traceparent", b"t"), (b"tracestate", b"s"), (b"accept", b"a")],
    }
    guarded = app if networks is None else TraceHeaders(app, networks)
    asyncio.run(guarded(scope, Any, Any))  # type: ignore[arg-type]
    traces = [name for name, _ in found[0]["headers"] if name.startswith(b"trace")]
    assert traces == ([b"traceparent", b"tracestate"] if counts else [])
    assert (b"accept", b"a") in found[0]["headers"]
