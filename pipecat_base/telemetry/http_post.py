"""``POST`` of JSON to an operator's address, from a thread."""

from __future__ import annotations

import contextlib
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from pipecat_base.errors import LAUNCHER

TIMEOUT = 5.0
"""Seconds for each step of one request: the connection, and each read."""
MAX_ANSWER = 65536
"""Bytes of an answer that are read."""
HEADERS = {"content-type": "application/json", "user-agent": LAUNCHER}


class NotTaken(Exception):
    """The other side has not taken it.

    Attributes:
        status: Its HTTP status; None where there was no answer.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Unredirected(urllib.request.HTTPRedirectHandler):
    """A redirect would turn a POST into a GET."""

    def redirect_request(self, *args: Any, **options: Any) -> None:
        return None


def post(url: str, body: bytes, headers: Mapping[str, str]) -> None:
    """Send it, through the proxy that the environment names, if it does.

    Raises:
        NotTaken: there was no answer, or one of 300 or more. Its words hold no part of the address.
    """
    request = urllib.request.Request(url, body, {**HEADERS, **headers}, method="POST")  # noqa: S310
    try:
        with urllib.request.build_opener(_Unredirected).open(request, timeout=TIMEOUT) as answer:
            answer.read(MAX_ANSWER)
    except urllib.error.HTTPError as error:
        error.close()
        raise NotTaken(f"HTTP status {error.code}", error.code) from None
    except urllib.error.URLError as error:
        raise NotTaken(_reason(error.reason)) from None
    except Exception as error:  # http.client's, and those of a socket
        raise NotTaken(_reason(error)) from None


class PostConnection:
    """A connection that is kept, for what is posted all the time. Used by one thread; no proxy is asked."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path or "/"
        if parts.query:
            self._path += f"?{parts.query}"
        kind = http.client.HTTPSConnection if parts.scheme.lower() == "https" else http.client.HTTPConnection
        self._http = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)

    def post(self, body: bytes) -> None:
        """Send it; once more where a connection that was kept turns out to be closed.

        Raises:
            NotTaken: as :func:`post`; from 400 on.
        """
        was_kept = self._http.sock is not None
        try:
            status = self._exchange(body)
        except (ConnectionError, http.client.BadStatusLine) as error:
            if not was_kept:
                raise NotTaken(_reason(error)) from None
            status = self._again(body)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise NotTaken(_reason(error)) from None
        if status >= 400:
            raise NotTaken(f"HTTP status {status}", status)

    def _again(self, body: bytes) -> int:
        try:
            return self._exchange(body)
        except (OSError, http.client.HTTPException) as error:
            raise NotTaken(_reason(error)) from None

    def _exchange(self, body: bytes) -> int:
        try:
            self._http.request("POST", self._path, body, HEADERS)
            answer = self._http.getresponse()
            if len(answer.read(MAX_ANSWER)) == MAX_ANSWER:
                self._http.close()
        except BaseException:
            with contextlib.suppress(OSError):
                self._http.close()
            raise
        return answer.status


def _reason(error: object) -> str:
    return getattr(error, "strerror", None) or type(error).__name__
