"""WhatsApp calls: webhooks from Meta, requests to its Graph API. Only :meth:`WhatsApp.load` imports aiohttp."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipecat_base.bot.lazy_import import LazyImport
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import Pod

if TYPE_CHECKING:
    from pipecat_base.api.whatsapp_calls.calls import OpenCalls


class WhatsApp:
    """Builds :class:`OpenCalls` on first use."""

    def __init__(self, token: str, phone_number_id: str, pod: Pod) -> None:
        self._token = token
        self._phone_number_id = phone_number_id
        self._pod = pod
        self._calls = LazyImport("WhatsApp", "pipecat_base.api.whatsapp_calls.calls", self._build)

    def release(self, session_id: str) -> None:
        """End the session of this id if it still waits for a call."""
        slot = self._pod.take_over(session_id)
        if slot is not None:
            with logger.contextualize(session_id=session_id):
                logger.warning("WhatsApp: the session ends, because its webhook brought no call")
            slot.end(Outcome.CANCELLED)

    async def load(self) -> OpenCalls:
        """Raises NotSupported if an installed package cannot be imported."""
        return await self._calls.get()

    def _build(self) -> OpenCalls:
        from pipecat_base.api.whatsapp_calls.calls import OpenCalls
        from pipecat_base.api.whatsapp_calls.graph import Graph

        return OpenCalls(self._pod, Graph(self._token, self._phone_number_id))
