"""WebSockets that come to the gateway: those of phone providers, by name, and those that ``/start`` has promised."""

from __future__ import annotations

import base64
from urllib.parse import quote, urlencode

from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.auth.tokens import Tokens
from pipecat_base.config.settings import Settings
from pipecat_base.errors import UnknownAgent, UnknownSession
from pipecat_base.gateway.forwarding import NOTHING, forwarded
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.telephony import PROVIDERS, Telephony

GENERIC = "generic"
"""On the platform: a provider that it does not know."""


class ProviderStream:
    """``WS /ws/{provider}?serviceHost=AGENT.ORGANIZATION``, as the platform has it; passed on to the pod's ``/ws``.

    A token may follow as a further part of the path: Twilio drops queries.

    Args:
        inside: The pod's own routes.
        direct: Takes those that have proved nothing, as callers that bypass the gateway.
        tokens: Makes the token of a stream whose signature is good; None when none is needed.
        agent_name: The only agent that may be named; None for any.
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
        needs_signature = token is None or self._tokens is None
        is_signed = needs_signature and self._telephony.check_handshake(self._provider, websocket)
        if is_signed and self._tokens is not None:
            token = self._tokens.mint()
        path = "/ws" if token is None else f"/ws/{quote(token)}"
        # A signature is proof here, a token is for the pod to check; without either it is anyone's.
        has_proof = is_signed or self._tokens is not None
        serve = self._inside if has_proof else self._direct
        await serve(forwarded(websocket, path.encode(), dropped=NOTHING), receive, send)


class ClientStream:
    """``WS /sessions/{session_id}/ws-client``: one that was promised gets its session's id and body.

    The id is not in the query: some clients take it that they may append ``?token=``.
    """

    def __init__(self, inside: ASGIApp, pending_sessions: PendingSessions) -> None:
        self._inside = inside
        self._pending_sessions = pending_sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        session_id: str = websocket.path_params["session_id"]
        invitation = self._pending_sessions.find(session_id)
        if invitation is None:
            raise UnknownSession(session_id, "No session of this id waits for its client: POST /start first.")
        body = base64.urlsafe_b64encode(invitation.body).decode()
        query = {"body": body, **{k: v for k, v in websocket.query_params.items() if k == "token"}}
        passed = forwarded(
            websocket,
            b"/ws-client",
            session_id=session_id,
            query=urlencode(query).encode(),
            dropped=NOTHING,
        )

        async def send_and_note(message: Message) -> None:
            if message["type"] == "websocket.accept":  # else it may try again, with a token say
                self._pending_sessions.withdraw(session_id)
            await send(message)

        await self._inside(passed, receive, send_and_note)


class StreamPath:
    """Where a provider sends a call's audio: a pod with a token takes it through the gateway alone."""

    def __init__(self, settings: Settings, tokens: Tokens | None) -> None:
        self._tokens = tokens
        self._guarded = settings.gateway.pod_token is not None
        self._signed = settings.providers.twilio_auth_token is not None

    def __call__(self, provider: str) -> str:
        if self._tokens is not None:
            return f"{self.without_token(provider)}/{self._tokens.mint()}"
        # Twilio signs the handshake of a stream: at this path it is checked.
        return "/ws/twilio" if provider == "twilio" and self._signed else self.without_token(provider)

    def without_token(self, provider: str) -> str:
        """To be followed by a slash and a token where one is needed."""
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
    """Those that the gateway serves itself; the pod has the others."""
    found = [WebSocketRoute("/sessions/{session_id}/ws-client", ClientStream(inside, pending_sessions))]
    for provider in (*PROVIDERS, GENERIC):
        stream = ProviderStream(provider, inside, direct, telephony, tokens=tokens, agent_name=agent_name)
        found += [WebSocketRoute(f"/ws/{provider}", stream), WebSocketRoute(f"/ws/{provider}/{{token}}", stream)]
    return found
