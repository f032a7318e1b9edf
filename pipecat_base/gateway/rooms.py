"""Meetings that pipecat's runner knows beside Daily's: in a LiveKit room, at a MoQ server in the bot."""

from __future__ import annotations

import asyncio
import base64
import importlib
import secrets
import uuid
from collections.abc import Sequence
from typing import Any

from pipecat_base.bot import installed
from pipecat_base.config.settings import Settings
from pipecat_base.errors import NotSupported
from pipecat_base.sessions.transports import LiveKitRoom, MoqServer

MOQ_PORT = 4080
"""Where pipecat's MoQ transport listens when it serves itself."""


def livekit(settings: Settings, session_id: str) -> tuple[LiveKitRoom, dict[str, Any]]:
    """A LiveKit room, and what the caller needs to join it.

    Raises:
        NotSupported: LiveKit is not configured or not installed.
    """
    url, key, secret = (
        settings.providers.livekit_url,
        settings.providers.livekit_api_key,
        settings.providers.livekit_api_secret,
    )
    if url is None or key is None or secret is None:
        message = "LiveKit is not configured here: set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET."
        raise NotSupported(message, field="transport")
    try:
        tokens: Any = importlib.import_module("pipecat.runner.livekit")
    except ImportError:
        raise NotSupported("LiveKit is not installed here: pip install pipecat-ai[livekit].") from None
    name = settings.providers.livekit_room_name or f"pipecat-{uuid.uuid4().hex[:8]}"
    suffix = session_id[:8]  # LiveKit throws out whoever has an identity that joins again
    agent = tokens.generate_token_with_agent(name, f"Pipecat Agent-{suffix}", key, secret)
    user = tokens.generate_token(name, f"User-{suffix}", key, secret)
    return LiveKitRoom(url, name, agent), {"url": url, "token": user}


class Moq:
    """A bot that serves Media over QUIC itself, on this machine.

    Args:
        namespace: Like a room's name.
    """

    def __init__(self, namespace: str | None) -> None:
        if not installed.has(*installed.MOQ):
            raise NotSupported("MoQ is not installed here: pip install pipecat-ai[moq].", field="transport")
        self._namespace = namespace or f"pipecat-{secrets.token_hex(8)}"
        self._fingerprints: Sequence[str] = ()
        self.ready = asyncio.Event()

    def transport(self) -> MoqServer:
        """Where the bot is to serve; ``ready`` is set once it does."""
        return MoqServer(self._namespace, MOQ_PORT, self._note_serving)

    def _note_serving(self, fingerprints: Sequence[str]) -> None:
        self._fingerprints = fingerprints
        self.ready.set()

    def answer(self) -> dict[str, Any]:
        """What the client's transport is made with, as in pipecat's runner. Browsers pin the certificate's hash."""
        fingerprints = self._fingerprints
        return {
            "relayUrl": f"https://localhost:{MOQ_PORT}/moq",
            "certHash": base64.b64encode(bytes.fromhex(fingerprints[0])).decode() if fingerprints else None,
            "serve": True,
            "namespace": self._namespace,
            "clientId": "request",
            "botId": "response",
            "transcriptTrack": "transcript.json.z",
        }
