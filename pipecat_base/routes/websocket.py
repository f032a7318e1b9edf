"""``WS /ws`` (phone providers) and ``WS /ws-client`` (plain clients).

The bot gets the accepted socket untouched: a provider's first messages can be read only once. When the session has
ended the socket is closed, so that the peer never sees 1006.
"""

from __future__ import annotations

from functools import partial

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from pipecat_base.access.keys import bearer_of
from pipecat_base.access.tokens import Tokens
from pipecat_base.arguments import ArgumentFactory
from pipecat_base.errors import Unauthorized
from pipecat_base.flows import FILE as FLOW_FILE
from pipecat_base.flows import FlowFiles
from pipecat_base.outcomes import Outcome
from pipecat_base.paths import TOKEN_PATHS
from pipecat_base.routes import requests
from pipecat_base.sessions import Sessions, Transport

PHONE = None
"""transport_type for /ws: pipecat recognises the provider by its first messages."""
PLAIN_CLIENT = "websocket"
"""transport_type for /ws-client."""

BAD_TOKEN = "This WebSocket needs a token that is valid and was not used before."  # noqa: S105

CLOSE_CODES = {
    Outcome.COMPLETED: (1000, "the bot returned"),
    Outcome.DISCONNECTED: (1000, "the caller went away"),
    Outcome.FAILED: (1011, "the bot failed"),
    Outcome.DRAINED: (1001, "shutting down"),
    Outcome.EXPIRED: (4008, "the session's time was up"),
    Outcome.CANCELLED: (4009, "the session was cancelled"),
}
"""RFC 6455 section 7.4; 4000-4999 are for applications."""


class WebSocketRoutes:
    """Runs WebSocket sessions.

    Args:
        tokens: Checks single-use tokens; None when every connection is let in.
        allowed_origins: Lower-case; empty for all.
    """

    def __init__(
        self,
        sessions: Sessions,
        arguments: ArgumentFactory,
        flow_files: FlowFiles,
        *,
        tokens: Tokens | None,
        allowed_origins: frozenset[str],
    ) -> None:
        self._sessions = sessions
        self._arguments = arguments
        self._flow_files = flow_files
        self._tokens = tokens
        self._allowed_origins = allowed_origins

    def routes(self) -> list[WebSocketRoute]:
        """The routes to serve; each also with the token as the last part of the path."""
        phone, client = partial(self.serve, PHONE), partial(self.serve, PLAIN_CLIENT)
        return [
            WebSocketRoute("/ws", phone),
            WebSocketRoute("/ws-client", client),
            *(
                WebSocketRoute(f"{path}{{token}}", serve)
                for path, serve in zip(TOKEN_PATHS, (phone, client), strict=True)
            ),
        ]

    async def serve(self, transport_type: str | None, websocket: WebSocket) -> None:
        """One session, from before accept to close."""
        token = self._authorize(websocket)
        session_id = requests.session_id(websocket)
        max_seconds = requests.max_seconds(websocket, session_id)
        body = requests.query_body(websocket, session_id)
        flow_config = await self._flow_files.read(websocket.headers.get(FLOW_FILE), session_id)
        async with self._sessions.admit(session_id, Transport.WEBSOCKET, max_seconds=max_seconds) as session:
            # Used up only now: a refusal for want of a place leaves it good for the next try.
            if self._tokens is not None and not self._tokens.consume(token):
                raise Unauthorized(BAD_TOKEN, field="token", session_id=session_id)
            arguments = await self._arguments.websocket(
                session_id, body, websocket, transport_type, flow_config=flow_config
            )
            await websocket.accept()
            session.on_end(partial(_close, websocket))
            await self._sessions.run(session, arguments)

    def _authorize(self, websocket: WebSocket) -> str:
        """The connection's token, empty when none is needed."""
        if self._allowed_origins and websocket.headers.get("origin", "").lower() not in self._allowed_origins:
            raise Unauthorized("This origin is not in PIPECAT_ALLOWED_ORIGINS.", field="origin")
        token = _token(websocket) if self._tokens is not None else ""
        if self._tokens is not None and not self._tokens.is_good(token):
            raise Unauthorized(BAD_TOKEN, field="token")
        return token


def _token(websocket: WebSocket) -> str:
    in_path = websocket.path_params.get("token")
    if in_path:
        return str(in_path)
    bearer = bearer_of(websocket)
    return websocket.query_params.get("token", "") if bearer is None else bearer


async def _close(websocket: WebSocket, outcome: Outcome) -> None:
    if WebSocketState.DISCONNECTED in (websocket.application_state, websocket.client_state):
        return
    code, reason = CLOSE_CODES[outcome]
    try:
        await websocket.close(code, reason)
    except (RuntimeError, WebSocketDisconnect):
        return  # it was closed in the meantime, by the bot or by the peer
