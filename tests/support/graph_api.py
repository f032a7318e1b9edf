"""Meta's side of WhatsApp calls on loopback: a Graph API, signed webhooks, and callers that are aiortc peers."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
from aiortc import RTCSessionDescription

from tests.support.browser_peer import Browser
from tests.support.launchers import ROOT, Launcher, until

TOKEN, NUMBER, SECRET, VERIFICATION = "EAAG-graph-token", "436666719526789", "app-secret", "verify-me-0123456789"
VARIABLES = {
    "WHATSAPP_TOKEN": TOKEN,
    "WHATSAPP_PHONE_NUMBER_ID": NUMBER,
    "WHATSAPP_APP_SECRET": SECRET,
    "WHATSAPP_WEBHOOK_VERIFICATION_TOKEN": VERIFICATION,
}
EXPIRED = {
    "error": {
        "message": "Error validating access token: Session has expired on Friday.",
        "type": "OAuthException",
        "code": 190,
        "fbtrace_id": "A1b2C3",
    }
}

Reply = Callable[[dict[str, Any]], "tuple[int, bytes]"]


def succeed(request: dict[str, Any]) -> tuple[int, bytes]:
    return 200, json.dumps({"messaging_product": "whatsapp", "success": True}).encode()


class Graph:
    """``POST /v23.0/{phone_number_id}/calls``. What it is asked is in ``requests``; ``reply`` may be changed."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.reply: Reply = succeed
        graph = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                status, answer = graph._check(self.path, self.headers.get("authorization", ""), content)
                self.send_response(status)
                self.send_header("content-type", "application/json" if answer[:1] == b"{" else "text/html")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """The launcher hung up: part of some tests."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v23.0/"
        self.variables = {"GRAPH_URL": self.url, "PYTHONPATH": str(ROOT / "tests" / "support" / "graph_site")}
        """For launchers: whichever of their processes calls, it calls this one."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> Graph:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def actions(self, call_id: str) -> list[str]:
        return [request["action"] for request in self.requests if request["call_id"] == call_id]

    def wait_for(self, call_id: str, action: str) -> dict[str, Any]:
        def find() -> Any:
            return [r for r in self.requests if r["call_id"] == call_id and r["action"] == action]

        found: dict[str, Any] = until(find, f"{action} of {call_id}")[0]
        return found

    def _check(self, path: str, authorization: str, content: dict[str, Any]) -> tuple[int, bytes]:
        if path != f"/v23.0/{NUMBER}/calls" or content.get("messaging_product") != "whatsapp":
            return 400, b'{"error": {"message": "Unsupported post request", "code": 100}}'
        if authorization != f"Bearer {TOKEN}":
            return 401, json.dumps(EXPIRED).encode()
        if content["action"] in ("pre_accept", "accept"):
            session = content.get("session", {})
            if session.get("sdp_type") != "answer" or not str(session.get("sdp")).startswith("v=0"):
                return 400, b'{"error": {"message": "Invalid session", "code": 138008}}'
        self.requests.append({**content, "at": time.monotonic()})
        return self.reply(content)


def sign(body: bytes, secret: str = SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def webhook(value: dict[str, Any]) -> bytes:
    metadata = {"display_phone_number": "13175551399", "phone_number_id": NUMBER}
    value = {"messaging_product": "whatsapp", "metadata": metadata, **value}
    entry = {"id": "366634483210360", "changes": [{"value": value, "field": "calls"}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()


def connect(call_id: str, sdp: str, **extra: Any) -> bytes:
    call = {"id": call_id, "to": "13175551399", "from": "16315553601", "event": "connect", "timestamp": "1671644824"}
    return webhook({"calls": [{**call, "session": {"sdp_type": "offer", "sdp": sdp}, **extra}]})


def terminate(call_id: str) -> bytes:
    call = {"id": call_id, "to": "13175551399", "from": "16315553601", "event": "terminate", "timestamp": "1671644999"}
    return webhook({"calls": [{**call, "status": "COMPLETED", "duration": 12}]})


def deliver(launcher: Launcher, body: bytes, **headers: str) -> httpx.Response:
    """As Meta does; a header given as "" is left out."""
    sent = {"content-type": "application/json", "x-hub-signature-256": sign(body), **headers}
    named = {name.replace("_", "-"): value for name, value in sent.items() if value}
    return launcher.http.post("/whatsapp", content=body, headers=named)


def call_id() -> str:
    return f"wacid.{uuid.uuid4().hex}"


class Caller(Browser):
    """A phone: audio only, its SDP goes through Meta."""

    def __init__(self, launcher: Launcher, graph: Graph, frequency: float = 440) -> None:
        super().__init__(f"http://127.0.0.1:{launcher.port}", frequency, audio_only=True)
        self.id = call_id()
        self._launcher = launcher
        self._graph = graph

    async def call(self) -> httpx.Response:
        """Ring, and apply what Meta was told to answer."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        body = connect(self.id, self.pc.localDescription.sdp)
        response = await asyncio.to_thread(deliver, self._launcher, body, x_daily_session_id=self.id)
        accepted = await asyncio.to_thread(self._graph.wait_for, self.id, "accept")
        await self.pc.setRemoteDescription(RTCSessionDescription(accepted["session"]["sdp"], "answer"))
        return response
