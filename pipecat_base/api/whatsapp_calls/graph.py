"""Meta's Graph API for calls, through pipecat's client, with timeouts and clear errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from pipecat.transports.whatsapp.api import WhatsAppApi

from pipecat_base.http_client import bounded_session
from pipecat_base.logs.escaping import logged

ANSWER_TIMEOUT_SECONDS = 5.0  # for each of the two steps of answering
END_TIMEOUT_SECONDS = 1.5  # less than sessions.registry.CLOSE_TIMEOUT


class GraphError(Exception):
    """The Graph API failed or refused; one line, without the token."""


class Graph:
    """The calls of one business number. Each request raises :class:`GraphError`."""

    def __init__(self, token: str, phone_number_id: str) -> None:
        self._token = token
        self._phone_number_id = phone_number_id

    async def pre_accept(self, call_id: str, caller: str, sdp: str) -> None:
        """Negotiate media while the caller's phone still rings."""
        await self._answer("pre_accept", call_id, caller, sdp)

    async def accept(self, call_id: str, caller: str, sdp: str) -> None:
        """Take the call, after :meth:`pre_accept`. After a GraphError it may be connected nevertheless."""
        await self._answer("accept", call_id, caller, sdp)

    async def _answer(self, action: str, call_id: str, caller: str, sdp: str) -> None:
        async with self._api(ANSWER_TIMEOUT_SECONDS) as api:
            await self._request(action, api.answer_call_to_whatsapp(call_id, action, sdp, caller))

    async def reject(self, call_id: str) -> None:
        """Decline a call that rings."""
        async with self._api(END_TIMEOUT_SECONDS) as api:
            await self._request("reject", api.reject_call_to_whatsapp(call_id))

    async def terminate(self, call_id: str) -> None:
        """End a call that was accepted."""
        async with self._api(END_TIMEOUT_SECONDS) as api:
            await self._request("terminate", api.terminate_call_to_whatsapp(call_id))

    @asynccontextmanager
    async def _api(self, timeout: float) -> AsyncIterator[WhatsAppApi]:
        # A session for each use: an idle connection would have been closed by the next one, minutes later.
        limits = aiohttp.ClientTimeout(total=timeout)
        async with bounded_session(timeout=limits) as session:
            yield WhatsAppApi(self._token, self._phone_number_id, session)

    async def _request(self, action: str, answering: Awaitable[Any]) -> None:
        try:
            answer = await answering
        except TimeoutError:
            raise GraphError(f"{action}: the Graph API did not answer in time") from None
        except aiohttp.ContentTypeError as error:
            raise GraphError(f"{action}: the Graph API answered {error.status} without JSON") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise GraphError(f"{action}: the Graph API cannot be used: {self._one_line(error)}") from None
        if not isinstance(answer, dict) or answer.get("success") is not True:
            raise GraphError(f"{action}: the Graph API refused: {self._reason(answer)}")

    def _reason(self, answer: Any) -> str:
        """``{"error": {"code", "message", ...}}`` (developers.facebook.com/docs/graph-api/guides/error-handling)."""
        error = answer.get("error") if isinstance(answer, dict) else None
        if not isinstance(error, dict):
            return "without a reason"
        return f"code {self._one_line(error.get('code'))}: {self._one_line(error.get('message'))}"

    def _one_line(self, content: object) -> str:
        return logged(str(content).replace(self._token, "...")) or type(content).__name__
