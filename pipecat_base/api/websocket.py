"""``WS /ws`` (phone providers) and ``WS /ws-client`` (plain clients)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from pipecat_base.api import requests
from pipecat_base.api.flow_config import FILE as FLOW_FILE
from pipecat_base.api.flow_config import SCOPE_KEY, FlowFiles
from pipecat_base.auth.keys import bearer_of
from pipecat_base.auth.tokens import Tokens
from pipecat_base.errors import Unauthorized
from pipecat_base.server.paths import STREAMS, STREAMS_WITH_TOKEN
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import TransportKind, WebSocketTransport

if TYPE_CHECKING:
    from pipecat_base.bot.pod import LocalPod

# Values of transport_type. On /ws, pipecat detects the provider by its first messages.
PHONE = None
PLAIN_CLIENT = "websocket"

BAD_TOKEN = "This WebSocket needs a token that is valid here and was not used before."  # noqa: S105


def stream_paths(*, takes_tokens: bool) -> tuple[str, ...]:
    """With tokens, each path also has a variant with the token as its last part."""
    return (*STREAMS, *STREAMS_WITH_TOKEN) if takes_tokens else STREAMS


class StreamTokens:
    """Checks the single-use tokens of WebSockets. ``tokens`` None accepts every connection."""

    def __init__(self, tokens: Tokens | None) -> None:
        self._tokens = tokens

    def check(self, websocket: WebSocket, session_id: str) -> str:
        """Return the connection's token, empty if none is needed."""
        if self._tokens is None:
            return ""
        token = _token(websocket)
        if not self._tokens.is_valid(token, session_id):
            raise Unauthorized(BAD_TOKEN, field="token")
        return token

    def consume(self, token: str, session_id: str) -> None:
        """Called once the session has a slot: after a refusal for want of one, the token stays valid."""
        if self._tokens is not None and not self._tokens.consume(token, session_id):
            raise Unauthorized(BAD_TOKEN, field="token", session_id=session_id)

    def restore(self, token: str) -> None:
        if self._tokens is not None:
            self._tokens.restore(token)


class WebSocketRoutes:
    """Runs WebSocket sessions."""

    def __init__(self, pod: LocalPod, flow_files: FlowFiles, tokens: StreamTokens, paths: Sequence[str]) -> None:
        self._pod = pod
        self._flow_files = flow_files
        self._tokens = tokens
        self._paths = paths

    def routes(self) -> list[WebSocketRoute]:
        serves = partial(self.serve, PHONE), partial(self.serve, PLAIN_CLIENT)
        return [WebSocketRoute(path, serve) for path, serve in zip(self._paths, serves * 2, strict=False)]

    async def serve(self, transport_type: str | None, websocket: WebSocket) -> None:
        session_id = requests.session_id(websocket)
        token = self._tokens.check(websocket, session_id)
        max_seconds = requests.max_seconds(websocket, session_id)
        body = await requests.query_body(websocket, session_id)
        flow_config = websocket.scope.get(SCOPE_KEY)
        if flow_config is None:
            flow_config = await self._flow_files.read(websocket.headers.get(FLOW_FILE), session_id)
        request = SessionRequest(session_id, TransportKind.WEBSOCKET, max_seconds, caller=requests.caller(websocket))
        async with self._pod.reserve(request) as slot:
            self._tokens.consume(token, session_id)
            await slot.run(WebSocketTransport(websocket, transport_type), body, flow_config=flow_config)


def _token(websocket: WebSocket) -> str:
    in_path = websocket.path_params.get("token")
    if in_path:
        return str(in_path)
    bearer = bearer_of(websocket)
    return websocket.query_params.get("token", "") if bearer is None else bearer
