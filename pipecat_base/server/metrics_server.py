"""Serves ``GET /metrics`` with the usual bounds, on an event loop of its own."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from dataclasses import replace

from prometheus_client import CollectorRegistry, make_asgi_app
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.config.settings import ServerLimits
from pipecat_base.errors import PortUnavailable
from pipecat_base.server.server import Server, listen

MAX_SCRAPE_CONNECTIONS = 128
MAX_SCRAPE_HEAD_BYTES = 16 * 1024
WITHOUT_WEBSOCKETS = "none"


class MetricsServer:
    """Serves a registry in a thread until it is closed; ``limits`` are the launcher's, reduced here."""

    def __init__(
        self,
        host: str,
        port: int,
        registry: CollectorRegistry,
        limits: ServerLimits,
        guard: Callable[[ASGIApp], ASGIApp],
    ) -> None:
        self._listener = _listener(host, port)
        self.port: int = self._listener.getsockname()[1]
        bounds = replace(
            limits,
            max_connections=min(MAX_SCRAPE_CONNECTIONS, limits.max_connections or MAX_SCRAPE_CONNECTIONS),
            max_head_bytes=min(MAX_SCRAPE_HEAD_BYTES, limits.max_head_bytes),
        )
        self._server = Server(guard(_Metrics(make_asgi_app(registry))), bounds, WITHOUT_WEBSOCKETS)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self, within: float) -> None:
        self._server.should_exit = True
        self._thread.join(within)

    def _run(self) -> None:
        asyncio.run(self._server.serve(sockets=[self._listener]))


class _Metrics:
    """prometheus_client's application, without the headers that it could not decode."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in scope["headers"] if value.isascii()]
        await self._app({**scope, "headers": headers}, receive, send)


def _listener(host: str, port: int) -> socket.socket:
    try:
        return listen(host, port)
    except PortUnavailable as error:
        raise PortUnavailable(
            f"PIPECAT_METRICS_PORT: {error.message}",
            "Free the port, or choose another one with PIPECAT_METRICS_PORT.",
        ) from error
