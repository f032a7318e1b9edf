"""Paths and headers that more than one part knows."""

from __future__ import annotations

PROBES = ("/livez", "/readyz")
STARTS = ("/bot", "/api/offer", "/files")
"""What is limited to a gateway where there is one."""
STREAMS = ("/ws", "/ws-client")
"""They have tokens of their own, too: PIPECAT_WEBSOCKET_AUTH."""
TOKEN_PATHS = ("/ws/", "/ws-client/")
"""What follows these is a token."""
PHONES = ("twilio", "telnyx", "plivo", "exotel")
"""Phone providers; a stream of theirs may come to /ws/ and their name."""

CAPABILITIES = "/pcc/capabilities"
"""Of the platform."""

POD = (*PROBES, *STARTS, *STREAMS, "/whatsapp", CAPABILITIES)
"""Routes of a pod's own."""

STATUS = "/status"
"""What the page asks for, also while no bot can be served."""

OURS = (*PROBES, *STARTS, *STREAMS, "/whatsapp", "/start", "/sessions", STATUS, "/", "/telephony")
"""Those of the launcher and of its gateway that a bot may have thought of too."""

SESSION_ID = "x-daily-session-id"
SESSION_ID_LENGTH = 256
"""Characters at most."""
