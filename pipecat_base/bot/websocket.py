"""A session's WebSocket: what its first messages say of the call, and its end, with a code that says how that came."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pipecat_base.sessions.outcome import CLOSE_CODES, Outcome

FIRST_MESSAGES = 3
"""Phone companies name the call in one of them."""
LONGEST_START = 65536
"""Characters of a message that is looked at."""
LONGEST_CALL_ID = 256
CALL_IDS = (
    ("twilio", ("start", "callSid")),
    ("telnyx", ("start", "call_control_id")),
    ("plivo", ("start", "callId")),
    ("exotel", ("start", "call_sid")),
)
"""By provider, where its own id of the call is in its message ``start``."""


def listen(websocket: WebSocket, tell: Callable[[dict[str, str]], None]) -> None:
    """Tell, as the bot reads its first messages, which provider's call this is: ``provider`` and ``call_id``."""
    receive, left = websocket._receive, FIRST_MESSAGES

    async def receive_and_look() -> Message:
        nonlocal left
        message = await receive()
        left -= 1
        found = call_in(message.get("text"))
        if found is not None:
            tell(found)
        if (found is not None or left == 0) and websocket._receive is receive_and_look:
            websocket._receive = receive  # nothing is on the way of audio
        return message

    websocket._receive = receive_and_look


def call_in(text: Any) -> dict[str, str] | None:
    """The provider and its own id of the call, from its message ``start``; None where it is another message.

    Their documentation: twilio.com/docs/voice/media-streams/websocket-messages, developers.telnyx.com (media
    streaming), plivo.com/docs/voice/streams, developer.exotel.com (voice streaming).
    """
    if not isinstance(text, str) or len(text) > LONGEST_START or '"start"' not in text:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    for provider, path in CALL_IDS:
        found: Any = content
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str) and found.isprintable() and len(found) <= LONGEST_CALL_ID:
            return {"provider": provider, "call_id": found}
    return None


async def close(websocket: WebSocket, outcome: Outcome) -> None:
    """Unless the bot or the peer has closed it."""
    if WebSocketState.DISCONNECTED in (websocket.application_state, websocket.client_state):
        return
    code, reason = CLOSE_CODES[outcome]
    try:
        await websocket.close(code, reason)
    except (RuntimeError, WebSocketDisconnect):
        return  # it was closed in the meantime, by the bot or by the peer
