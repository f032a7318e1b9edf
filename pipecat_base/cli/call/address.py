"""Where to call: a bot's own address, or what a gateway's ``/start`` answers with."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from pipecat_base.cli.call.figures import CallError
from pipecat_base.server.paths import PHONES, SESSION_ID, STREAMS, TOKEN_PATHS

OFFER = "/api/offer"
ANSWER_TIMEOUT = 30.0
"""Seconds from a request to its answer: ICE servers that are gone cost the bot some."""
OUTCOME_TIMEOUT = 3.0
"""Seconds in all, for what is asked after a call."""
OUTCOME_WAIT = 0.1
NAMED = (*PHONES, "generic")
"""What may follow /ws/ and is no token."""
FORM = "http://host:port for a gateway, ws://host:port/ws for a bot"


@dataclass(frozen=True)
class Address:
    """What the caller was given.

    Attributes:
        url: Of the bot; a gateway's base where ``starts``.
        key: Of the gateway; never shown.
        starts: Whether a session is asked for first, with ``POST /start``.
    """

    url: str
    key: str | None = field(default=None, repr=False)
    starts: bool = False

    @classmethod
    def of(cls, url: str | None, port: int, key: str | None, *, webrtc: bool) -> Address:
        """From the command line. A key, or a gateway's address without a path, asks the gateway first.

        Raises:
            CallError: it is no address for such a call.
        """
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

    @property
    def base(self) -> str:
        """Of the gateway, if there is one."""
        return self.url.removesuffix(OFFER)

    def shown(self) -> str:
        """For people: without what may be secret."""
        return shown(self.url)

    async def start(self, transport: str, body: Any) -> dict[str, Any]:
        """What ``POST /start`` answers.

        Raises:
            CallError: the gateway refuses, or nothing answers.
        """
        return await self.post(
            f"{self.url}/start", {"transport": transport, **({} if body is None else {"body": body})}
        )

    async def stream(self, provider: str) -> str:
        """Where a phone provider is to send the audio, with a token if there is one."""
        if not self.starts:
            return self.url
        answer = await self.start(provider, None)
        url, token = answer.get("wsUrl"), answer.get("token")
        if not isinstance(url, str):
            raise CallError(f"{self.shown()}/start did not answer where to connect to (wsUrl)")
        return f"{url}/{quote(str(token))}" if token else url

    async def post(self, url: str, content: Any) -> dict[str, Any]:
        """Post JSON; the answer, with the session's id from its header as ``sessionId``.

        Raises:
            CallError: it is refused, or nothing answers.
        """
        try:
            status, body, headers = await asyncio.to_thread(self._request, url, content, ANSWER_TIMEOUT)
        except TimeoutError:
            raise CallError(f"{shown(url)} did not answer within {ANSWER_TIMEOUT:g} s") from None
        except (http.client.InvalidURL, ValueError):
            raise CallError(f"{shown(url)} is not an HTTP address") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise unreachable(url, getattr(reason, "strerror", None) or reason) from None
        if status != 200:
            raise CallError.refused(shown(url), status, body, key=self.key)
        with contextlib.suppress(ValueError):
            answer = json.loads(body)
            if isinstance(answer, dict):
                return {"sessionId": headers.get(SESSION_ID), **answer}
        raise CallError(f"{shown(url)} did not answer with a JSON object")

    async def outcome(self, session_id: str | None) -> tuple[str, str] | None:
        """How a session ended and a sentence, from a gateway; None where nobody tells."""
        url = f"{self.base}/sessions/{quote(str(session_id), safe='')}"
        until = time.monotonic() + OUTCOME_TIMEOUT
        while (left := until - time.monotonic()) > 0:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
                status, body, _headers = await asyncio.to_thread(self._request, url, None, left)
                if status != 200:
                    return None
                answer = json.loads(body)
                return str(answer["outcome"]), str(answer["message"])
            await asyncio.sleep(OUTCOME_WAIT)  # its connection ends before the session does
        return None

    async def give_up(self, session_id: str) -> None:
        """Tell the gateway that nobody comes for a session, if it can be told."""
        url = f"{self.base}/sessions/{quote(session_id, safe='')}"
        with contextlib.suppress(OSError, http.client.HTTPException):
            await asyncio.to_thread(self._request, url, None, OUTCOME_TIMEOUT, "DELETE")

    def _request(self, url: str, content: Any, timeout: float, method: str | None = None) -> tuple[int, bytes, Any]:
        """POST with content, else GET, unless a method is named. Never through a proxy: the bot is mostly here."""
        headers = {} if self.key is None else {"authorization": f"Bearer {self.key}"}
        data = None if content is None else json.dumps(content).encode()
        if data is not None:
            headers["content-type"] = "application/json"
        request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310  (its scheme is checked)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
        try:
            with opener.open(request, timeout=timeout) as response:
                return response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read(), error.headers


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key elsewhere."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def with_body(url: str, body: Any) -> str:
    """The bot's body as ``?body=`` has it: JSON in URL-safe base64."""
    parts = urlsplit(url)
    coded = urlencode({"body": base64.urlsafe_b64encode(json.dumps(body).encode()).decode()})
    return urlunsplit(parts._replace(query=f"{parts.query}&{coded}" if parts.query else coded))


def shown(url: str) -> str:
    """For people: without a query, a password or a token in the path."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "an address that cannot be read"
    path = parts.path
    for start in TOKEN_PATHS:
        before, found, rest = path.partition(start)
        if found and before.count("/") < 2:
            kept = [part for part in rest.split("/")[:1] if part in NAMED]
            path = (
                f"{before}{start}{''.join(kept)}"
                if kept == rest.split("/")
                else f"{before}{start}{'/'.join([*kept, '...'])}"
            )
    return urlunsplit((parts.scheme, host, path, "", ""))


def unreachable(url: str, reason: object) -> CallError:
    """Nothing answers there."""
    return CallError(f"nothing answers at {shown(url)}: {reason}. Does the bot run there (pipecat-base dev)?")
