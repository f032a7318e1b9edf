"""The gateway's WebSockets: streams of phone providers, and clients of ``/start``."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlencode

from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.api.flow_config import SCOPE_KEY
from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import GatewaySettings, ProviderSettings
from pipecat_base.errors import UnknownAgent, UnknownSession
from pipecat_base.gateway.forwarding import NO_HEADERS, forwarded
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.providers import PROVIDERS
from pipecat_base.gateway.telephony import Telephony

GENERIC = "generic"  # on the platform: an unknown provider


class ProviderStream:
    """``WS /ws/{provider}?serviceHost=AGENT.ORGANIZATION``, as on the platform; forwarded to the pod's ``/ws``.

    The token may be the last part of the path, because Twilio drops queries. Streams without proof go to ``direct``.
    """

    def __init__(
        self,
        provider: str,
        inside: ASGIApp,
        direct: ASGIApp,
        telephony: Telephony,
        *,
        tokens: Tokens | None,
        agent_name: str | None,
    ) -> None:
        self._provider = provider
        self._inside = inside
        self._direct = direct
        self._telephony = telephony
        self._tokens = tokens
        self._agent_name = agent_name

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        agent = websocket.query_params.get("serviceHost", "").partition(".")[0]
        if agent and self._agent_name not in (None, agent):
            raise UnknownAgent("There is no agent of this name.", field="serviceHost")
        token = websocket.path_params.get("token")
        is_signed = token is None and self._telephony.check_handshake(self._provider, websocket)
        if is_signed and self._tokens is not None:
            token = self._tokens.mint()
        path = "/ws" if token is None else f"/ws/{quote(token)}"
        # The signature was checked above; the pod checks a token.
        has_proof = is_signed or self._tokens is not None
        serve = self._inside if has_proof else self._direct
        await serve(forwarded(websocket, path.encode(), dropped=NO_HEADERS), receive, send)


class ClientStream:
    """``WS /sessions/{session_id}/ws-client`` and ``/ws``, the second for phones: streams of pending sessions."""

    # The id is not in the query: some clients append "?token=" to the URL, and Twilio drops queries.

    def __init__(self, path: str, inside: ASGIApp, pending_sessions: PendingSessions) -> None:
        self._path = path
        self._inside = inside
        self._pending_sessions = pending_sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        session_id: str = websocket.path_params["session_id"]
        pending = self._pending_sessions.find(session_id)
        if pending is None:
            raise UnknownSession(session_id, "No session of this id waits for its client: POST /start first.")
        body = base64.urlsafe_b64encode(pending.body).decode()
        query = {"body": body, **{k: v for k, v in websocket.query_params.items() if k == "token"}}
        token = websocket.path_params.get("token")
        pod_scope = forwarded(
            websocket,
            (self._path if token is None else f"{self._path}/{quote(token)}").encode(),
            session_id=session_id,
            query=urlencode(query).encode(),
            dropped=NO_HEADERS,
        )
        pod_scope[SCOPE_KEY] = pending.flow_config

        async def send_and_note(message: Message) -> None:
            if message["type"] == "websocket.accept":  # otherwise the client may retry, for example with a token
                self._pending_sessions.remove(session_id)
            await send(message)

        await self._inside(pod_scope, receive, send_and_note)


class StreamPath:
    def __init__(self, gateway: GatewaySettings, providers: ProviderSettings, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._guarded = gateway.pod_token is not None  # the pod accepts streams only through the gateway
        signings = ((provider.name, provider.signing) for provider in PROVIDERS.values())
        self._signed = {
            name for name, s in signings if s is not None and s.covers_streams and s.secret(providers) is not None
        }

    def __call__(self, provider: str) -> str:
        if self._tokens is not None:
            return f"{self.without_token(provider)}/{self._tokens.mint()}"
        # A signed handshake is checked at this path.
        return f"/ws/{provider}" if provider in self._signed else self.without_token(provider)

    def without_token(self, provider: str) -> str:
        return f"/ws/{provider}" if self._guarded else "/ws"


def routes(
    inside: ASGIApp,
    direct: ASGIApp,
    telephony: Telephony,
    pending_sessions: PendingSessions,
    *,
    tokens: Tokens | None,
    agent_name: str | None,
) -> list[WebSocketRoute]:
    client = ClientStream("/ws-client", inside, pending_sessions)
    phone = ClientStream("/ws", inside, pending_sessions)
    found = [
        WebSocketRoute("/sessions/{session_id}/ws-client", client),
        WebSocketRoute("/sessions/{session_id}/ws", phone),
        WebSocketRoute("/sessions/{session_id}/ws/{token}", phone),
    ]
    for provider in (*PROVIDERS, GENERIC):
        stream = ProviderStream(provider, inside, direct, telephony, tokens=tokens, agent_name=agent_name)
        found.append(WebSocketRoute(f"/ws/{provider}", stream))
        if tokens is not None:
            found.append(WebSocketRoute(f"/ws/{provider}/{{token}}", stream))
    return found
