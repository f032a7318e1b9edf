"""A session's WebSocket: the phone provider's call id in its first messages, and the close code at its end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from starlette.types import Message
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import CLOSE_CODES, Outcome

# Phone providers send their id of the call in one of the first messages.
FIRST_MESSAGES = 3
MAX_START_CHARACTERS = 65536
MAX_CALL_ID_CHARACTERS = 256
SERVICE_HOST = "_pipecatCloudServiceHost"  # a <Parameter> in TwiML, because Twilio drops the query serviceHost
# By provider, the path of its id of the call in its message "start".
CALL_IDS = (
    ("twilio", ("start", "callSid")),
    ("telnyx", ("start", "call_control_id")),
    ("plivo", ("start", "callId")),
    ("exotel", ("start", "call_sid")),
)


async def accept(websocket: WebSocket) -> None:
    """Accept with the first subprotocol that the client offers: browsers close a connection that names none of theirs.

    The bot may accept again, as in an app of its own.
    """
    chosen = next(filter(None, websocket.scope.get("subprotocols", ())), None)
    await websocket.accept(subprotocol=chosen)

    async def accept_again(subprotocol: str | None = None, headers: Any = None) -> None:
        if subprotocol not in (None, chosen):
            logger.warning(f"The bot accepts subprotocol {subprotocol!r}, but the launcher has accepted {chosen!r}")

    websocket.accept = accept_again  # type: ignore[method-assign]


def watch_for_call_id(websocket: WebSocket, on_call: Callable[[dict[str, str], str], None]) -> None:
    """Call ``on_call`` with ``provider`` and ``call_id``, and the agent or "", when the bot reads their message."""
    receive, left = websocket._receive, FIRST_MESSAGES

    async def receive_and_search() -> Message:
        nonlocal left
        message = await receive()
        left -= 1
        found = call_in(message.get("text"))
        if found is not None:
            on_call(found, agent_in(message["text"]))
        if (found is not None or left == 0) and websocket._receive is receive_and_search:
            websocket._receive = receive  # adds no cost to audio
        return message

    websocket._receive = receive_and_search


def call_in(text: Any) -> dict[str, str] | None:
    """The provider and its id of the call, from its message ``start``.

    twilio.com/docs/voice/media-streams/websocket-messages, developers.telnyx.com (media streaming),
    plivo.com/docs/voice/streams, developer.exotel.com (voice streaming).
    """
    if not isinstance(text, str) or len(text) > MAX_START_CHARACTERS or '"start"' not in text:
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
        if isinstance(found, str) and found.isprintable() and len(found) <= MAX_CALL_ID_CHARACTERS:
            return {"provider": provider, "call_id": found}
    return None


def agent_in(start: str) -> str:
    """The agent that a call is for, of Twilio's parameter ``AGENT.ORGANIZATION``; "" if it names none."""
    found: Any = json.loads(start)
    for name in ("start", "customParameters", SERVICE_HOST):
        found = found.get(name) if isinstance(found, dict) else None
    return found.partition(".")[0] if isinstance(found, str) else ""


async def close(websocket: WebSocket, outcome: Outcome) -> None:
    if WebSocketState.DISCONNECTED in (websocket.application_state, websocket.client_state):
        return
    code, reason = CLOSE_CODES[outcome]
    try:
        await websocket.close(code, reason)
    except (RuntimeError, WebSocketDisconnect):
        return  # the bot or the peer closed it meanwhile
