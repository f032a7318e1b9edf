"""WhatsApp calls: Meta's webhooks in, its Graph API out, and SmallWebRTC between.

Nothing here imports aiortc or aiohttp: :meth:`WhatsApp.load` does, right after the launcher is ready.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from pipecat_base import webrtc
from pipecat_base.arguments import ArgumentFactory
from pipecat_base.errors import NotSupported
from pipecat_base.logs import logger
from pipecat_base.sessions import Sessions

if TYPE_CHECKING:
    from pipecat_base.whatsapp.calls import Calls


class WhatsApp:
    """Builds what answers calls when it is needed first.

    Args:
        token: WHATSAPP_TOKEN.
        phone_number_id: WHATSAPP_PHONE_NUMBER_ID.
    """

    def __init__(
        self,
        token: str,
        phone_number_id: str,
        sessions: Sessions,
        arguments: ArgumentFactory,
        webrtc: webrtc.WebRTC,
    ) -> None:
        self._token = token
        self._phone_number_id = phone_number_id
        self._sessions = sessions
        self._arguments = arguments
        self._webrtc = webrtc
        self._calls: Calls | None = None
        self._loading = asyncio.Lock()

    async def load(self) -> Calls:
        """What answers calls.

        Raises:
            NotSupported: what is installed does not import.
        """
        async with self._loading:
            if self._calls is None:
                peers = (await self._webrtc.load()).peers
                try:
                    await asyncio.to_thread(_import)
                except Exception as error:
                    logger.error(f"WhatsApp does not import: {type(error).__name__}: {error}")
                    raise NotSupported("WhatsApp is installed here, but does not import.") from None
                from pipecat_base.whatsapp.calls import Calls
                from pipecat_base.whatsapp.graph import Graph

                graph = Graph(self._token, self._phone_number_id)
                self._calls = Calls(self._sessions, self._arguments, peers, graph)
            return self._calls


def _import() -> None:
    import pipecat_base.whatsapp.calls  # noqa: F401
