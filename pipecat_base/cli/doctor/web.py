"""Requests that change nothing, to services that are reached over HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import Any

TIMEOUT = 3.0
"""Seconds, for each step of an answer."""
MAX_ANSWER = 64 * 1024
"""Bytes of it that are read."""


class Unreachable(Exception):
    """No answer; why, without what was sent."""


@dataclass(frozen=True)
class WebAnswer:
    """What a service said.

    Attributes:
        date: Its clock, as in the header.
    """

    status: int
    date: str | None
    is_json: bool


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Where a redirect leads to must not get the key."""

    def redirect_request(self, *arguments: Any) -> None:
        return None


def request(url: str, headers: Mapping[str, str] | None = None, *, method: str = "GET") -> WebAnswer:
    """Ask once; through no proxy, as the launcher and pipecat ask.

    Raises:
        NotReached: there was no answer.
    """
    opener = urllib.request.build_opener(_NoRedirects(), urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, headers=dict(headers or {}), method=method)  # noqa: S310
        with opener.open(request, timeout=TIMEOUT) as response:
            return _answer(response.status, response.headers, response.read(MAX_ANSWER))
    except urllib.error.HTTPError as error:
        with error:
            return _answer(error.code, error.headers, b"")
    except urllib.error.URLError as error:
        raise Unreachable(_reason(error.reason)) from None
    except OSError as error:
        raise Unreachable(_reason(error)) from None
    except HTTPException as error:
        raise Unreachable(f"it does not answer in HTTP ({type(error).__name__})") from None
    except ValueError:
        # Its words hold the header, and so the key.
        raise Unreachable("the address or the key has characters that cannot be sent") from None


def _answer(status: int, headers: Message, content: bytes) -> WebAnswer:
    try:
        json.loads(content)
    except ValueError:
        return WebAnswer(status, headers["date"], is_json=False)
    return WebAnswer(status, headers["date"], is_json=True)


def _reason(error: object) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {TIMEOUT:g} s"
    words = getattr(error, "strerror", None) or error
    return " ".join(str(words).split())
