"""Operators' addresses on loopback, which keep what was posted to them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Sink:
    """Answers with ``status``; hangs until it is closed if that is None.

    Attributes:
        posts: Path, headers in lower case, and body of each request.
        delay: Seconds until the answer.
    """

    def __init__(self, status: int | None = 200) -> None:
        self.status = status
        self.delay = 0.0
        self.refused: bytes | None = None
        """Requests with this are answered with 503."""
        self.posts: list[tuple[str, dict[str, str], bytes]] = []
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def contents(self, path: str = "/") -> list[Any]:
        """Decoded bodies of the requests to this path."""
        return [json.loads(body) for found, _, body in self.posts if found == path]

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                time.sleep(sink.delay)
                sink.posts.append((self.path, headers, body))
                status = 503 if sink.refused is not None and sink.refused in body else sink.status
                if status is None:
                    sink._closed.wait(60)
                    return
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

        return Handler


class Keeping(BaseHTTPRequestHandler):
    """Keeps connections open, as HTTP/1.1 does.

    Attributes:
        ends: Closes the connection after each response, as a proxy that is restarted does.
    """

    protocol_version = "HTTP/1.1"
    response = b""
    ends = False
    posts: list[bytes]
    connections: list[Any]

    def setup(self) -> None:
        super().setup()
        self.connections.append(self.client_address)

    def do_POST(self) -> None:
        self.posts.append(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", str(len(self.response)))
        self.end_headers()
        self.wfile.write(self.response)
        self.close_connection = self.close_connection or self.ends

    def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002


@contextmanager
def served(**attributes: Any) -> Iterator[tuple[str, type[Keeping]]]:
    handler = type("Handler", (Keeping,), {"posts": [], "connections": [], **attributes})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/events", handler
    finally:
        server.shutdown()
        server.server_close()
