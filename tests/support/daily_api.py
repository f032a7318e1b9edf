"""Daily's REST API on loopback: rooms and meeting tokens, as docs.daily.co has them."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class DailyApi:
    """Remembers what was asked of it."""

    key = "daily-key-s3cr3t"

    def __init__(self) -> None:
        self.rooms: dict[str, dict[str, Any]] = {}
        self.tokens: list[dict[str, Any]] = []
        self.deleted: list[str] = []
        self.failure: int | None = None
        """The status of the next answer."""
        self.token_failure: int | None = None
        """The status of the next answer to a request for a token."""
        self._asked, self._gate = threading.Event(), threading.Event()
        self._gate.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> DailyApi:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, t: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                self._answer(*api.answer(self.path, self.headers["authorization"], content))

            def do_DELETE(self) -> None:
                name = self.path.rpartition("/")[2]
                api.deleted.append(name)
                api.rooms.pop(name, None)
                self._answer(200, {"deleted": True, "name": name})

            def _answer(self, status: int, content: Any) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    @contextlib.contextmanager
    def slow(self) -> Iterator[threading.Event]:
        """Answer nothing before :meth:`go_on`; the event is set once something was asked."""
        self._asked.clear()
        self._gate.clear()
        try:
            yield self._asked
        finally:
            self.go_on()

    def go_on(self) -> None:
        self._gate.set()

    def answer(self, path: str, authorization: str, content: dict[str, Any]) -> tuple[int, Any]:
        self._asked.set()
        self._gate.wait(20)
        if authorization != f"Bearer {self.key}":
            return 401, {"error": "authentication-error"}
        if self.failure is not None:
            status, self.failure = self.failure, None
            return status, {"error": "invalid-request-error", "info": "no such property"}
        if path == "/v1/meeting-tokens" and self.token_failure is not None:
            status, self.token_failure = self.token_failure, None
            return status, {"error": "server-error"}
        if path == "/v1/meeting-tokens":
            self.tokens.append(content["properties"])
            return 200, {"token": f"token-{len(self.tokens)}"}
        name = content["name"]
        self.rooms[name] = content["properties"]
        config = dict(content["properties"])
        if "sip" in config:
            config["sip_uri"] = {"endpoint": f"{name}@sip.example"}
        return 200, {
            "id": "1",
            "name": name,
            "api_created": True,
            "privacy": content.get("privacy", "public"),
            "url": f"https://example.daily.co/{name}",
            "created_at": "2026-01-01T00:00:00.000Z",
            "config": config,
        }
