"""Answers of other services, read no further than they can be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp

MAX_ANSWER = 1024 * 1024
"""Bytes. Those of Daily, Meta and of ICE servers' lists have a few thousand."""


def bounded_session(**options: Any) -> aiohttp.ClientSession:
    """aiohttp's, which reads no endless answer, nor one that is small only on its way.

    aiohttp is pipecat's own dependency, imported late.
    """
    import aiohttp

    as_it_is = {"accept-encoding": "identity"}
    return aiohttp.ClientSession(response_class=_bounded_response(), headers=as_it_is, auto_decompress=False, **options)


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
                if size > MAX_ANSWER:
                    self.close()
                    raise aiohttp.ClientPayloadError(f"the answer has more than {MAX_ANSWER} bytes")
                parts.append(part)
            await self.wait_for_close()
            return b"".join(parts)

    return BoundedResponse
