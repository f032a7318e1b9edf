"""Paths and headers that several rooms know."""

from __future__ import annotations

PROBES = ("/livez", "/readyz")
STARTS = ("/bot", "/api/offer", "/files")  # limited to the gateway where there is one
STREAMS = ("/ws", "/ws-client")  # these accept WebSocket tokens too (PIPECAT_WEBSOCKET_AUTH)
TOKEN_PATHS = ("/ws/", "/ws-client/")
STREAMS_WITH_TOKEN = tuple(f"{path}{{token}}" for path in TOKEN_PATHS)  # without tokens these are the bot's own
PHONES = ("twilio", "telnyx", "plivo", "exotel")  # phone providers; each may open its stream at /ws/NAME

CAPABILITIES = "/pcc/capabilities"

POD = (*PROBES, *STARTS, *STREAMS, "/whatsapp", CAPABILITIES)

STATUS = "/status"  # polled by the page, also while no bot can be served

# Paths of the launcher and its gateway that a bot's own routes could collide with.
LAUNCHER_PATHS = (*PROBES, *STARTS, *STREAMS, "/whatsapp", "/start", "/sessions", STATUS, "/", "/telephony")

SESSION_ID = "x-daily-session-id"
SESSION_ID_LENGTH = 256
