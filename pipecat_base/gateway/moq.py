"""MoQ (Media over QUIC), for a bot that serves it itself on this machine."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Sequence
from typing import Any

from pipecat_base.bot import installed
from pipecat_base.errors import NotSupported
from pipecat_base.sessions.transports import MoqServer

MOQ_PORT = 4080  # of pipecat's MoQ transport when it serves itself


class Moq:
    """``ready`` is set once the bot serves. The namespace is like a room's name."""

    def __init__(self, namespace: str | None) -> None:
        if not installed.has(*installed.MOQ):
            raise NotSupported("MoQ is not installed here: pip install pipecat-ai[moq].", field="transport")
        self._namespace = namespace or f"pipecat-{secrets.token_hex(8)}"
        self._fingerprints: Sequence[str] = ()
        self.ready = asyncio.Event()

    def transport(self) -> MoqServer:
        return MoqServer(self._namespace, MOQ_PORT, self._on_serving)

    def _on_serving(self, fingerprints: Sequence[str]) -> None:
        self._fingerprints = fingerprints
        self.ready.set()

    def answer(self) -> dict[str, Any]:
        """Arguments of the client's transport, as in pipecat's runner. Browsers pin the certificate's hash."""
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
