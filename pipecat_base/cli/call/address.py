"""The address to call: a bot's own, or the one in a gateway's answer to ``POST /start``."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from pipecat_base import http_client
from pipecat_base.cli.call.figures import CallError
from pipecat_base.http_client import HttpResponse, NoResponse
from pipecat_base.server.paths import PHONES, SESSION_ID, STREAMS, TOKEN_PATHS

OFFER = "/api/offer"
RESPONSE_TIMEOUT_SECONDS = 30.0  # the bot may wait for ICE servers first
OUTCOME_TIMEOUT_SECONDS = 3.0
OUTCOME_POLL_SECONDS = 0.1
NAMES_AFTER_WS = (*PHONES, "generic")
FORM = "http://host:port for a gateway, ws://host:port/ws for a bot"


@dataclass(frozen=True)
class Address:
    """An address to call; with ``starts`` a gateway's base, where the session begins with ``POST /start``."""

    url: str
    key: str | None = field(default=None, repr=False)
    starts: bool = False

    @classmethod
    def of(cls, url: str | None, port: int, key: str | None, *, webrtc: bool) -> Address:
        """Read the command line: a key, or an HTTP address without a path, is for a gateway."""
        own = f"http://127.0.0.1:{port}{OFFER}" if webrtc else f"ws://127.0.0.1:{port}/ws"
        given = own if url is None else url
        try:
            scheme, path, host = (parts := urlsplit(given)).scheme, parts.path.rstrip("/"), parts.hostname
        except ValueError:
            scheme, path, host = "", "", None
        wanted = ("http", "https") if webrtc else ("http", "https", "ws", "wss")
        if scheme not in wanted or not host:
            raise CallError(f"{shown(given)} is not an address to call ({FORM})")
        if key is not None or (scheme.startswith("http") and (not webrtc or not path)):
            for ending in (OFFER, "/start", *STREAMS):
                path = path.removesuffix(ending)
            secure = scheme in ("https", "wss")
            return cls(urlunsplit(("https" if secure else "http", parts.netloc, path, "", "")), key, starts=True)
        return cls(given, key)

    def shown(self) -> str:
        return shown(self.url)

    async def start(self, transport: str, body: Any) -> dict[str, Any]:
        content = {"transport": transport, **({} if body is None else {"body": body})}
        return await self.post(f"{self.url}/start", content)

    async def stream(self, provider: str) -> str:
        """The WebSocket's address for a phone provider, with a token if there is one."""
        if not self.starts:
            return self.url
        answer = await self.start(provider, None)
        url, token = answer.get("wsUrl"), answer.get("token")
        if not isinstance(url, str):
            raise CallError(f"{self.shown()}/start did not answer where to connect to (wsUrl)")
        return f"{url}/{quote(str(token))}" if token else url

    async def post(self, url: str, content: Any) -> dict[str, Any]:
        """Post JSON; the answer gets the session's id from its header as ``sessionId``."""
        try:
            response = await self._send("POST", url, content, RESPONSE_TIMEOUT_SECONDS)
        except NoResponse as error:
            raise unreachable(url, error) from None
        if response.status != 200:
            raise CallError.refused(shown(url), response.status, response.content, key=self.key)
        with contextlib.suppress(ValueError):
            answer = json.loads(response.content)
            if isinstance(answer, dict):
                return {"sessionId": response.headers.get(SESSION_ID), **answer}
        raise CallError(f"{shown(url)} did not answer with a JSON object")

    async def outcome(self, session_id: str | None) -> tuple[str, str] | None:
        """A session's outcome and a sentence about it, from a gateway; None where there is none."""
        until = time.monotonic() + OUTCOME_TIMEOUT_SECONDS
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(NoResponse, ValueError, KeyError, TypeError):
                response = await self._send("GET", self._session_url(session_id), None, left)
                if response.status != 200:
                    return None
                answer = json.loads(response.content)
                return str(answer["outcome"]), str(answer["message"])
            await asyncio.sleep(OUTCOME_POLL_SECONDS)  # its connection ends before the session does
        return None

    async def delete_session(self, session_id: str) -> None:
        with contextlib.suppress(NoResponse):
            await self._send("DELETE", self._session_url(session_id), None, OUTCOME_TIMEOUT_SECONDS)

    def _session_url(self, session_id: str | None) -> str:
        return f"{self.url.removesuffix(OFFER)}/sessions/{quote(str(session_id), safe='')}"

    async def _send(self, method: str, url: str, content: Any, timeout: float) -> HttpResponse:
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        data = None if content is None else json.dumps(content).encode()
        if data is not None:
            headers["content-type"] = "application/json"
        return await asyncio.to_thread(http_client.send, method, url, timeout=timeout, headers=headers, content=data)


def with_body(url: str, body: Any) -> str:
    """The address with ``?body=``: JSON in URL-safe base64."""
    parts = urlsplit(url)
    coded = urlencode({"body": base64.urlsafe_b64encode(json.dumps(body).encode()).decode()})
    return urlunsplit(parts._replace(query=f"{parts.query}&{coded}" if parts.query else coded))


def shown(url: str) -> str:
    """An address for people: without a query, a password or a token in the path."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an address that cannot be read"
    path = parts.path
    for start in TOKEN_PATHS:
        before, found, rest = path.partition(start)
        if found and before.count("/") < 2 and rest not in NAMES_AFTER_WS:
            name = rest.partition("/")[0]
            path = f"{before}{start}{f'{name}/' if name in NAMES_AFTER_WS else ''}..."
    return urlunsplit((parts.scheme, host, path, "", ""))


def unreachable(url: str, reason: object) -> CallError:
    return CallError(f"nothing answers at {shown(url)}: {reason}. Does the bot run there (pipecat-base dev)?")
