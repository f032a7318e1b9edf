"""Answers ``GET /metrics`` in threads, of which there are few: whoever keeps them busy costs no call."""

from __future__ import annotations

import socket
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

TIMEOUT = 5.0
"""Seconds that a scrape may keep a thread waiting."""
MOST = 8
"""Scrapes at once; more are closed unanswered."""


class _Handler(WSGIRequestHandler):
    timeout = TIMEOUT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Scrapes are no news."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], family: socket.AddressFamily) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MOST)
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Without the name of the host, which may take a DNS server seconds to tell."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        """In a thread, if one is free."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """In the thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A scraper that went away is no news either."""


def listen(host: str, port: int, registry: CollectorRegistry) -> WSGIServer:
    """A server that is to be run.

    Raises:
        OSError: the address cannot be listened on.
    """
    server = _Server((host, port), socket.AF_INET6 if ":" in host else socket.AF_INET)
    server.set_app(make_wsgi_app(registry))
    return server
