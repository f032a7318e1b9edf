"""``POST /start``: a session for whichever transport a client has, as pipecat's runner and Pipecat Cloud start it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse

from pipecat_base.api import requests
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot import installed
from pipecat_base.config.settings import Settings
from pipecat_base.errors import Malformed, NotRunning
from pipecat_base.gateway import rooms
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.telephony import PROVIDERS
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.pod import Pod, SessionRequest, SessionSlot
from pipecat_base.sessions.transports import PUBLIC_STUN, DailyRoom, NoTransport, PendingWebRTC, TransportKind

ANSWERED_SESSION_ID = "sessionId"
"""The header of the answer that Pipecat Cloud's documentation names."""
NEEDED_BY = {
    "webrtc": installed.WEBRTC,
    "daily": installed.DAILY,
    "livekit": installed.LIVEKIT,
    "moq": installed.MOQ,
}
MOQ_READY = 15.0
"""Seconds that a bot gets to serve MoQ, as in pipecat's runner."""


class StartRequest(BaseModel):
    """What the client asks for. Other fields are ignored."""

    transport: str | None = None
    body: Any = None
    createDailyRoom: bool | None = None  # noqa: N815
    dailyRoomProperties: dict[str, Any] | None = None  # noqa: N815
    dailyMeetingTokenProperties: dict[str, Any] | None = None  # noqa: N815
    enableDefaultIceServers: bool | None = None  # noqa: N815
    namespace: str | None = Field(default=None, max_length=128, pattern=r"^[\w./-]+$")


@dataclass(frozen=True)
class Asked:
    """One request to start a session."""

    request: Request
    session_id: str
    fields: StartRequest
    session_path: str
    """Where the session's own paths begin."""

    @property
    def body(self) -> Any:
        """For the bot: never None."""
        return {} if self.fields.body is None else self.fields.body


Answer = dict[str, Any]


class Starts:
    """Starts sessions.

    Args:
        tokens: Makes tokens for WebSockets; None when they need none.
        stream_path: Gives the path of a provider's streams, without a token.
    """

    def __init__(
        self,
        pod: Pod,
        settings: Settings,
        addresses: Addresses,
        daily: Daily,
        pending_sessions: PendingSessions,
        *,
        tokens: Tokens | None,
        stream_path: Callable[[str], str],
    ) -> None:
        self._pod = pod
        self._settings = settings
        self._addresses = addresses
        self._daily = daily
        self._pending_sessions = pending_sessions
        self._tokens = tokens
        self._stream_path = stream_path
        self._starting: dict[str, tuple[TransportKind, Callable[[Asked, SessionSlot], Awaitable[Answer]]]] = {
            "webrtc": (TransportKind.WEBRTC, self._with_webrtc),
            "daily": (TransportKind.DAILY, self._with_daily),
            "livekit": (TransportKind.LIVEKIT, self._with_livekit),
            "moq": (TransportKind.MOQ, self._with_moq),
        }
        self._inviting: dict[str, Callable[[Asked], Awaitable[Answer]]] = {
            "websocket": self._to_websocket,
            **{provider: partial(self._to_phone, provider) for provider in PROVIDERS},
        }

    @property
    def transports(self) -> list[str]:
        """Those that what is installed here can serve."""
        return [name for name in (*self._starting, *self._inviting) if installed.has(*NEEDED_BY.get(name, ()))]

    def router(self) -> APIRouter:
        """The routes to serve."""
        router = APIRouter(tags=["start"])
        body = {"content": {"application/json": {"schema": StartRequest.model_json_schema()}}}
        options: Any = {"methods": ["POST"], "openapi_extra": {"requestBody": body}}
        router.add_api_route("/start", self.start, **options)
        router.add_api_route("/v1/public/{agent}/start", self.start_agent, **options)
        return router

    async def start(self, request: Request) -> JSONResponse:
        """As pipecat's runner: a request that names no transport is for WebRTC."""
        return await self._start(request, "", "webrtc")

    async def start_agent(self, request: Request, agent: str) -> JSONResponse:
        """As Pipecat Cloud: a request that names no transport starts a bot that reaches its callers by itself."""
        return await self._start(request, f"/v1/public/{agent}", "plain")

    async def _start(self, request: Request, prefix: str, default: str) -> JSONResponse:
        fields = _parsed(await requests.json_body(request, self._settings.limits.max_body_bytes))
        session_id = str(uuid.uuid4())
        asked = Asked(request, session_id, fields, f"{prefix}/sessions/{session_id}")
        transport = fields.transport or ("daily" if fields.createDailyRoom else default)
        if transport == "daily" and not fields.createDailyRoom:
            transport = "plain"
        if transport in self._inviting:
            answer = await self._invite(transport, asked)
        elif transport == "plain":
            answer = await self._begin(TransportKind.PLAIN, self._with_nothing, asked)
        elif transport in self._starting:
            answer = await self._begin(*self._starting[transport], asked)
        else:
            raise Malformed(f"Not one of {', '.join((*self._starting, *self._inviting))}.", field="transport")
        headers = {SESSION_ID: session_id, ANSWERED_SESSION_ID: session_id} if ANSWERED_SESSION_ID in answer else {}
        return JSONResponse(answer, headers=headers)

    async def _begin(
        self, transport: TransportKind, begin: Callable[[Asked, SessionSlot], Awaitable[Answer]], asked: Asked
    ) -> Answer:
        """A session that begins now: it has a place before a room is made for it."""
        request = SessionRequest(
            asked.session_id,
            transport,
            gives_way=transport is TransportKind.WEBRTC,
            caller=requests.caller(asked.request),
        )
        async with self._pod.reserve(request) as slot:
            return await begin(asked, slot)

    async def _invite(self, transport: str, asked: Asked) -> Answer:
        """A session that begins when its caller connects: what would be refused now is refused at once."""
        refusal = self._pod.registry.refusal()
        if refusal is not None:
            raise refusal
        return await self._inviting[transport](asked)

    async def _with_nothing(self, asked: Asked, slot: SessionSlot) -> Answer:
        await slot.start(NoTransport(), asked.body)
        return self._started(asked)

    async def _with_webrtc(self, asked: Asked, slot: SessionSlot) -> Answer:
        servers = await self._pod.ice_servers()
        await slot.start(PendingWebRTC(), asked.body)
        answer = self._started(asked)
        if servers:
            answer["iceConfig"] = {"iceServers": servers}
        elif asked.fields.enableDefaultIceServers:
            answer["iceConfig"] = {"iceServers": [{"urls": [PUBLIC_STUN]}]}
        return answer

    async def _with_daily(self, asked: Asked, slot: SessionSlot) -> Answer:
        fields = asked.fields
        room = await self._daily.create(fields.dailyRoomProperties or {}, fields.dailyMeetingTokenProperties or {})
        async with self._daily.given_back_on_failure(room):
            await slot.start(DailyRoom(room.url, room.token), asked.body)
        return {"dailyRoom": room.url, "dailyToken": room.token, **self._started(asked)}

    async def _with_livekit(self, asked: Asked, slot: SessionSlot) -> Answer:
        room, answer = rooms.livekit(self._settings, asked.session_id)
        await slot.start(room, asked.body)
        return {**answer, **self._started(asked)}

    async def _with_moq(self, asked: Asked, slot: SessionSlot) -> Answer:
        moq = rooms.Moq(asked.fields.namespace)
        await slot.start(moq.transport(), asked.body)
        ready = asyncio.ensure_future(moq.ready.wait())
        ended = asyncio.ensure_future(slot.until_over())
        await asyncio.wait({ready, ended}, timeout=MOQ_READY, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        if not moq.ready.is_set():
            self._pod.registry.cancel(asked.session_id)
            raise NotRunning(f"The bot ended, or did not serve MoQ within {MOQ_READY:g} s.")
        return {**self._started(asked), "moq": moq.answer()}

    async def _to_websocket(self, asked: Asked) -> Answer:
        # The session begins when the client connects, so its uploads cannot belong to it yet.
        await self._pending_sessions.invite(asked.session_id, asked.body)
        url = f"{self._addresses.websocket(asked.request)}/sessions/{asked.session_id}/ws-client"
        answer: Answer = {"wsUrl": url, "sessionId": asked.session_id}
        if self._tokens is not None:
            answer["token"] = self._tokens.mint(session_id=asked.session_id)
        if self._pod.takes_files:
            answer["fileUploadUrl"] = "/files"
        return answer

    async def _to_phone(self, provider: str, asked: Asked) -> Answer:
        answer: Answer = {"wsUrl": f"{self._addresses.websocket(asked.request)}{self._stream_path(provider)}"}
        if self._tokens is not None:
            answer["token"] = self._tokens.mint()
        return answer

    def _started(self, asked: Asked) -> Answer:
        answer: Answer = {"sessionId": asked.session_id}
        if self._pod.takes_files:
            answer["fileUploadUrl"] = f"{asked.session_path}/files"
        return answer


def _parsed(content: Any) -> StartRequest:
    if not isinstance(content, dict):
        raise Malformed("Not an object.", field="body")
    try:
        return StartRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise Malformed(f"{first['msg']}.", field=".".join(map(str, first["loc"]))) from None
