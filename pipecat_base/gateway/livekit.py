"""LiveKit rooms, through pipecat's helper for their tokens."""

from __future__ import annotations

import importlib
import uuid
from typing import Any

from pipecat_base.config.settings import ProviderSettings
from pipecat_base.errors import NotSupported
from pipecat_base.sessions.transports import LiveKitRoom


def create_room(settings: ProviderSettings, session_id: str) -> tuple[LiveKitRoom, dict[str, Any]]:
    """Returns the bot's room, and the fields that the caller needs to join it."""
    url, key, secret = (
        settings.livekit_url,
        settings.livekit_api_key,
        settings.livekit_api_secret,
    )
    if url is None or key is None or secret is None:
        message = "LiveKit is not configured here: set LIVEKIT_URL, LIVEKIT_API_KEY and LIVEKIT_API_SECRET."
        raise NotSupported(message, field="transport")
    try:
        tokens: Any = importlib.import_module("pipecat.runner.livekit")
    except ImportError:
        raise NotSupported("LiveKit is not installed here: pip install pipecat-ai[livekit].") from None
    name = settings.livekit_room_name or f"pipecat-{uuid.uuid4().hex[:8]}"
    suffix = session_id[:8]  # LiveKit disconnects a participant whose identity joins again
    agent = tokens.generate_token_with_agent(name, f"Pipecat Agent-{suffix}", key, secret)
    user = tokens.generate_token(name, f"User-{suffix}", key, secret)
    return LiveKitRoom(url, name, agent), {"url": url, "token": user}
