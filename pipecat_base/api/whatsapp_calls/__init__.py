"""WhatsApp calls: Meta's webhooks in, its Graph API out. A pod answers them.

Nothing here imports aiohttp: :meth:`WhatsApp.load` does, right after the launcher is ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipecat_base.bot.lazy_import import LazyImport
from pipecat_base.sessions.pod import Pod

if TYPE_CHECKING:
    from pipecat_base.api.whatsapp_calls.calls import OpenCalls


class WhatsApp:
    """Builds what takes calls when it is needed first.

    Args:
        token: WHATSAPP_TOKEN.
        phone_number_id: WHATSAPP_PHONE_NUMBER_ID.
    """

    def __init__(self, token: str, phone_number_id: str, pod: Pod) -> None:
        self._token = token
        self._phone_number_id = phone_number_id
        self._pod = pod
        self._calls = LazyImport("WhatsApp", "pipecat_base.api.whatsapp_calls.calls", self._build)

    async def load(self) -> OpenCalls:
        """What takes calls.

        Raises:
            NotSupported: what is installed does not import.
        """
        return await self._calls.get()

    def _build(self) -> OpenCalls:
        from pipecat_base.api.whatsapp_calls.calls import OpenCalls
        from pipecat_base.api.whatsapp_calls.graph import Graph

        return OpenCalls(self._pod, Graph(self._token, self._phone_number_id))
