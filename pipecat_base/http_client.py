"""HTTP requests to other services, without redirects and with bounded responses."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

MAX_RESPONSE_BYTES = 1024 * 1024


class NoResponse(Exception):
    """The text gives the reason, never the address or the request."""


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: Message
    content: bytes


def send(
    method: str,
    url: str,
    *,
    timeout: float,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    max_bytes: int = MAX_RESPONSE_BYTES,
    uses_proxy: bool = False,
) -> HttpResponse:
    """Block until the response arrives; ``timeout`` is in seconds, for the connection and for each read.

    A redirect is returned as it is: following it would turn a POST into a GET and send credentials elsewhere.
    """
    handlers: list[Any] = [_AnyStatus]
    if not uses_proxy:
        handlers.append(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(url, content, dict(headers or {}), method=method)  # noqa: S310
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout) as response:
            return HttpResponse(response.status, response.headers, response.read(max_bytes))
    except urllib.error.URLError as error:
        raise NoResponse(_reason(error.reason, timeout)) from None
    except OSError as error:
        raise NoResponse(_reason(error, timeout)) from None
    except HTTPException as error:
        raise NoResponse(f"the response is not HTTP ({type(error).__name__})") from None
    except ValueError:
        raise NoResponse("the address or a header has characters that cannot be sent") from None


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """Return errors and redirects as they are."""

    def http_response(self, request: Any, response: Any) -> Any:
        return response

    https_response = http_response


def _reason(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no response within {timeout:g} s"
    return " ".join(str(getattr(error, "strerror", None) or error).split())


def bounded_session(**options: Any) -> aiohttp.ClientSession:
    """An aiohttp session that limits the size of responses, and accepts no compressed ones."""
    import aiohttp

    uncompressed = {"accept-encoding": "identity"}
    return aiohttp.ClientSession(
        response_class=_bounded_response(), headers=uncompressed, auto_decompress=False, **options
    )


def _bounded_response() -> type[aiohttp.ClientResponse]:
    import aiohttp

    class BoundedResponse(aiohttp.ClientResponse):
        async def read(self) -> bytes:
            if self._body is None:
                self._body = await self._read_bounded()
            return self._body

        async def _read_bounded(self) -> bytes:
            parts: list[bytes] = []
            size = 0
            async for part in self.content.iter_any():
                size += len(part)
                if size > MAX_RESPONSE_BYTES:
                    self.close()
                    raise aiohttp.ClientPayloadError(f"the answer has more than {MAX_RESPONSE_BYTES} bytes")
                parts.append(part)
            await self.wait_for_close()
            return b"".join(parts)

    return BoundedResponse
