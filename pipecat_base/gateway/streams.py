"""WebSockets that come to the gateway: those of phone providers, by name, and those that ``/start`` has promised."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, urlencode

from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket

from pipecat_base.errors import UnknownAgent, UnknownSession
from pipecat_base.gateway.forwarding import DROPPED_OF_WEBSOCKETS, forwarded
from pipecat_base.gateway.invitations import Invitations
from pipecat_base.gateway.pod import Pod
from pipecat_base.gateway.telephony import PROVIDERS, Telephony
from pipecat_base.tokens import Tokens

GENERIC = "generic"
"""On the platform: a provider that it does not know."""


class ProviderStream:
    """``WS /ws/{provider}?serviceHost=AGENT.ORGANIZATION``, as the platform has it; passed on to the pod's ``/ws``.

    A token may follow as a further part of the path: Twilio drops queries.

    Args:
        tokens: Makes the token of a stream whose signature is good; None when none is needed.
        agent_name: The only agent that may be named; None for any.
    """

    def __init__(
        self, provider: str, pod: Pod, telephony: Telephony, *, tokens: Tokens | None, agent_name: str | None
    ) -> None:
        self._provider = provider
        self._pod = pod
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
        await self._pod.serve(forwarded(websocket, path.encode(), dropped=DROPPED_OF_WEBSOCKETS), receive, send)


class ClientStream:
    """``WS /sessions/{session_id}/ws-client``: one that was promised gets its session's id and body.

    The id is not in the query: some clients take it that they may append ``?token=``.
    """

    def __init__(self, pod: Pod, invitations: Invitations) -> None:
        self._pod = pod
        self._invitations = invitations

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        session_id: str = websocket.path_params["session_id"]
        invitation = self._invitations.find(session_id)
        if invitation is None:
            raise UnknownSession("No session of this id waits for its client: POST /start first.")
        body = base64.urlsafe_b64encode(json.dumps(invitation.body).encode()).decode()
        query = {"body": body, **{k: v for k, v in websocket.query_params.items() if k in ("body", "token")}}
        passed = forwarded(
            websocket,
            b"/ws-client",
            session_id=session_id,
            query=urlencode(query).encode(),
            dropped=DROPPED_OF_WEBSOCKETS,
        )
        await self._pod.serve(passed, receive, send)


def routes(
    pod: Pod,
    telephony: Telephony,
    invitations: Invitations,
    *,
    tokens: Tokens | None,
    agent_name: str | None,
) -> list[WebSocketRoute]:
    """Those that the gateway serves itself; the pod has the others."""
    found = [WebSocketRoute("/sessions/{session_id}/ws-client", ClientStream(pod, invitations))]
    for provider in (*PROVIDERS, GENERIC):
        stream = ProviderStream(provider, pod, telephony, tokens=tokens, agent_name=agent_name)
        found += [WebSocketRoute(f"/ws/{provider}", stream), WebSocketRoute(f"/ws/{provider}/{{token}}", stream)]
    return found
