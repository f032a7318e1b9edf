"""``POST /start``: starts sessions, as pipecat's runner and Pipecat Cloud do."""

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
from pipecat_base.api.flow_config import is_flow
from pipecat_base.auth.tokens import Tokens
from pipecat_base.bot import installed
from pipecat_base.bot.served_transports import DEFAULT_TRANSPORT
from pipecat_base.config.settings import ProviderSettings
from pipecat_base.config.suggestions import nearest
from pipecat_base.errors import Malformed, NotRunning
from pipecat_base.gateway import livekit
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.daily import Daily
from pipecat_base.gateway.moq import Moq
from pipecat_base.gateway.pending_sessions import PendingSessions
from pipecat_base.gateway.providers import PROVIDERS
from pipecat_base.logs.escaping import logged
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import SESSION_ID
from pipecat_base.sessions.pod import Pod, SessionRequest, SessionSlot
from pipecat_base.sessions.transports import PUBLIC_STUN, DailyRoom, NoTransport, PendingWebRTC, TransportKind

SESSION_ID_FIELD = "sessionId"  # a field of the response; also a header in Pipecat Cloud's documentation
MOQ_READY_SECONDS = 15.0  # as in pipecat's runner
MAX_NAMES_LOGGED, MAX_NAME_LENGTH = 5, 60


class StartRequest(BaseModel):
    """The request's body. Other fields are refused in development, and ignored with a warning elsewhere."""

    transport: str | None = None
    body: Any = None
    flow_config: str | None = None
    createDailyRoom: bool | None = None  # noqa: N815
    dailyRoomProperties: dict[str, Any] | None = None  # noqa: N815
    dailyMeetingTokenProperties: dict[str, Any] | None = None  # noqa: N815
    enableDefaultIceServers: bool | None = None  # noqa: N815
    namespace: str | None = Field(default=None, max_length=128, pattern=r"^[\w./-]+$")


@dataclass(frozen=True)
class Start:
    request: Request
    session_id: str
    fields: StartRequest
    session_path: str  # the prefix of the session's own paths

    @property
    def body(self) -> Any:
        return {} if self.fields.body is None else self.fields.body

    @property
    def flow_config(self) -> str | None:
        return self.fields.flow_config


Answer = dict[str, Any]


class StartRoutes:
    def __init__(
        self,
        pod: Pod,
        providers: ProviderSettings,
        addresses: Addresses,
        daily: Daily,
        pending_sessions: PendingSessions,
        *,
        max_body_bytes: int,
        tokens: Tokens | None,
        stream_path: Callable[[str], str],  # by provider, without a token
        default_transport: str | None = None,
        is_dev: bool = False,
    ) -> None:
        self._pod = pod
        self._default_transport = default_transport or DEFAULT_TRANSPORT
        self._is_dev = is_dev
        self._providers = providers
        self._max_body_bytes = max_body_bytes
        self._addresses = addresses
        self._daily = daily
        self._pending_sessions = pending_sessions
        self._tokens = tokens
        self._stream_path = stream_path
        self._immediate: dict[str, tuple[TransportKind, Callable[[Start, SessionSlot], Awaitable[Answer]]]] = {
            "webrtc": (TransportKind.WEBRTC, self._with_webrtc),
            "daily": (TransportKind.DAILY, self._with_daily),
            "livekit": (TransportKind.LIVEKIT, self._with_livekit),
            "moq": (TransportKind.MOQ, self._with_moq),
        }
        self._deferred: dict[str, Callable[[Start], Awaitable[Answer]]] = {
            "websocket": self._to_websocket,
            **{provider: partial(self._to_phone, provider) for provider in PROVIDERS},
        }

    @property
    def transports(self) -> list[str]:
        return [
            name
            for name in (*self._immediate, *self._deferred)
            if installed.has(*installed.OF_TRANSPORTS.get(name, ()))
        ]

    def router(self) -> APIRouter:
        router = APIRouter(tags=["start"])
        body = {"content": {"application/json": {"schema": StartRequest.model_json_schema()}}}
        options: Any = {"methods": ["POST"], "openapi_extra": {"requestBody": body}}
        router.add_api_route("/start", self.start, **options)
        router.add_api_route("/v1/public/{agent}/start", self.start_agent, **options)
        return router

    async def start(self, request: Request) -> JSONResponse:
        """Default transport: PIPECAT_DEFAULT_TRANSPORT, as ``-t`` of pipecat's runner."""
        return await self._start(request, "", self._default_transport)

    async def start_agent(self, request: Request, agent: str) -> JSONResponse:
        """Default transport: none, as in Pipecat Cloud."""
        return await self._start(request, f"/v1/public/{agent}", "plain")

    async def _start(self, request: Request, prefix: str, default: str) -> JSONResponse:
        content = await requests.json_body(request, self._max_body_bytes)
        fields = _parsed(content)
        session_id = str(uuid.uuid4())
        self._check_names(content, session_id)
        with logger.contextualize(session_id=session_id):
            fields.body = self._daily.complete_dialin(fields.body)
        start = Start(request, session_id, fields, f"{prefix}/sessions/{session_id}")
        transport = fields.transport or ("daily" if fields.createDailyRoom else default)
        if transport == "daily" and not fields.createDailyRoom and self._daily.room_url is None:
            transport = "plain"
        if transport in self._deferred:
            answer = await self._prepare(transport, start)
        elif transport == "plain":
            answer = await self._begin(TransportKind.PLAIN, self._with_nothing, start)
        elif transport in self._immediate:
            answer = await self._begin(*self._immediate[transport], start)
        else:
            raise Malformed(f"Not one of {', '.join((*self._immediate, *self._deferred))}.", field="transport")
        headers = {SESSION_ID: session_id, SESSION_ID_FIELD: session_id} if SESSION_ID_FIELD in answer else {}
        return JSONResponse(answer, headers=headers)

    def _check_names(self, content: dict[str, Any], session_id: str) -> None:
        """Refuse unknown fields in development; log them elsewhere."""
        unknown = [name for name in content if name not in StartRequest.model_fields]
        if not unknown:
            return
        if self._is_dev:
            raise Malformed(_why_unknown(unknown[0]), field=logged(unknown[0], MAX_NAME_LENGTH))
        with logger.contextualize(session_id=session_id):
            for name in unknown[:MAX_NAMES_LOGGED]:
                logger.warning(f"Ignored '{logged(name, MAX_NAME_LENGTH)}' of POST /start: {_why_unknown(name)}")

    async def _begin(
        self, transport: TransportKind, begin: Callable[[Start, SessionSlot], Awaitable[Answer]], start: Start
    ) -> Answer:
        """Start a session now; it holds a slot before a room is made for it."""
        request = SessionRequest(
            start.session_id,
            transport,
            is_evictable=transport is TransportKind.WEBRTC,
            caller=requests.caller(start.request),
        )
        async with self._pod.reserve(request) as slot:
            return await begin(start, slot)

    async def _prepare(self, transport: str, start: Start) -> Answer:
        """Prepare a session that begins when its caller connects, unless it would be refused now."""
        refusal = self._pod.registry.refusal()
        if refusal is not None:
            raise refusal
        return await self._deferred[transport](start)

    async def _with_nothing(self, start: Start, slot: SessionSlot) -> Answer:
        await slot.start(NoTransport(), start.body, flow_config=start.flow_config)
        return self._started(start)

    async def _with_webrtc(self, start: Start, slot: SessionSlot) -> Answer:
        servers = await self._pod.ice_servers()
        await slot.start(PendingWebRTC(), start.body, flow_config=start.flow_config)
        answer = self._started(start)
        if servers:
            answer["iceConfig"] = {"iceServers": servers}
        elif start.fields.enableDefaultIceServers:
            answer["iceConfig"] = {"iceServers": [{"urls": [PUBLIC_STUN]}]}
        return answer

    async def _with_daily(self, start: Start, slot: SessionSlot) -> Answer:
        fields = start.fields
        room = await self._daily.create(fields.dailyRoomProperties or {}, fields.dailyMeetingTokenProperties or {})
        async with self._daily.deleting_on_failure(room):
            await slot.start(DailyRoom(room.url, room.token), start.body, flow_config=start.flow_config)
        return {"dailyRoom": room.url, "dailyToken": room.token, **self._started(start)}

    async def _with_livekit(self, start: Start, slot: SessionSlot) -> Answer:
        room, answer = livekit.create_room(self._providers, start.session_id)
        await slot.start(room, start.body, flow_config=start.flow_config)
        return {**answer, **self._started(start)}

    async def _with_moq(self, start: Start, slot: SessionSlot) -> Answer:
        moq = Moq(start.fields.namespace)
        await slot.start(moq.transport(), start.body, flow_config=start.flow_config)
        ready = asyncio.ensure_future(moq.ready.wait())
        ended = asyncio.ensure_future(slot.until_ended())
        await asyncio.wait({ready, ended}, timeout=MOQ_READY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        ended.cancel()
        if not moq.ready.is_set():
            self._pod.registry.cancel(start.session_id)
            raise NotRunning(f"The bot ended, or did not serve MoQ within {MOQ_READY_SECONDS:g} s.")
        return {**self._started(start), "moq": moq.answer()}

    async def _to_websocket(self, start: Start) -> Answer:
        # The session begins when the client connects, so its uploads cannot belong to it yet.
        await self._pending_sessions.add(start.session_id, start.body, start.flow_config)
        url = f"{self._addresses.websocket(start.request)}/sessions/{start.session_id}/ws-client"
        answer: Answer = {"wsUrl": url, "sessionId": start.session_id}
        if self._tokens is not None:
            answer["token"] = self._tokens.mint(session_id=start.session_id)
        if self._pod.takes_files:
            answer["fileUploadUrl"] = "/files"
        return answer

    async def _to_phone(self, provider: str, start: Start) -> Answer:
        address = self._addresses.websocket(start.request)
        answer: Answer = {"wsUrl": f"{address}{self._stream_path(provider)}"}
        if start.body != {} or start.flow_config is not None:
            # Only this call's stream gets them, so it has an address of its own.
            await self._pending_sessions.add(start.session_id, start.body, start.flow_config)
            answer = {"wsUrl": f"{address}/sessions/{start.session_id}/ws", "sessionId": start.session_id}
        if self._tokens is not None:
            answer["token"] = self._tokens.mint(session_id=answer.get("sessionId"))
        return answer

    def _started(self, start: Start) -> Answer:
        answer: Answer = {"sessionId": start.session_id}
        if self._pod.takes_files:
            answer["fileUploadUrl"] = f"{start.session_path}/files"
        return answer


def _parsed(content: Any) -> StartRequest:
    if not isinstance(content, dict):
        raise Malformed("Not an object.", field="body")
    if "flow_config" in content and not is_flow(content["flow_config"]):
        raise Malformed("Not the text of a flow (YAML or JSON), or blank.", field="flow_config")
    try:
        return StartRequest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise Malformed(f"{first['msg']}.", field=".".join(map(str, first["loc"]))) from None


def _why_unknown(name: str) -> str:
    meant = nearest([name[:MAX_NAME_LENGTH]], StartRequest.model_fields).get(name)
    hint = "What your bot reads belongs in body." if meant is None else f"Is {meant} meant?"
    return f"POST /start has no such field. {hint}"
