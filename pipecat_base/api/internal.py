"""Requests of the launcher to a worker, on connections of their own, which no caller and no middleware reaches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipecat_base.api.capabilities import Capabilities
from pipecat_base.api.requests import SESSION_ID_KEY
from pipecat_base.bot.pod import LocalPod, LocalSlot
from pipecat_base.errors import Refusal, UnknownSession
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Outcome
from pipecat_base.sessions.pod import SessionRequest
from pipecat_base.sessions.transports import Caller, MoqServer, TransportKind, WhatsAppCall, from_dict

NOT_JSON = "readyz() returned a dict that is not JSON"


class InternalRoutes:
    """``on_serving`` is called with a session's id and the fingerprints of its MoQ server."""

    def __init__(
        self, pod: LocalPod, capabilities: Capabilities, on_serving: Callable[[str, Sequence[str]], None]
    ) -> None:
        self._pod = pod
        self._capabilities = capabilities
        self._on_serving = on_serving
        self._calls: dict[str, WorkerCall] = {}
        self._connecting: set[asyncio.Task[None]] = set()

    def app(self) -> Starlette:
        routes = [
            Route("/livez", self._livez),
            Route("/readyz", self._readyz),
            Route("/capabilities", self._missing_capabilities),
            Route("/ice-servers", self._ice_servers),  # for clients; null if none are configured
            Route("/ice-servers/answering", self._answering_ice_servers),  # for peers
            Route("/features", self._features, methods=["POST"]),
            Route("/files", self._delete_files, methods=["DELETE"]),
            Route("/sessions", self._start, methods=["POST"]),  # 202 once the bot's arguments are made
            Route("/calls", self._pick_up, methods=["POST"]),  # a WhatsApp call, answered with its SDP
            Route("/calls/connect", self._connect, methods=["POST"]),
            Route("/calls/hang-up", self._hang_up, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={Refusal: _refuse})

    async def _livez(self, request: Request) -> JSONResponse:
        return JSONResponse({})

    async def _readyz(self, request: Request) -> JSONResponse:
        verdict = await self._pod.ready()
        try:
            return JSONResponse(verdict)
        except (TypeError, ValueError):
            logger.error(NOT_JSON)
            return JSONResponse({"ready": verdict["ready"], "reason": NOT_JSON})

    async def _missing_capabilities(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._capabilities.reasons())

    async def _ice_servers(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._pod.ice_servers())

    async def _answering_ice_servers(self, request: Request) -> JSONResponse:
        return JSONResponse(await self._pod.all_ice_servers())

    async def _features(self, request: Request) -> JSONResponse:
        self._pod.log_features()
        return JSONResponse({})

    async def _delete_files(self, request: Request) -> JSONResponse:
        for url in await request.json():
            try:
                await self._pod.arguments.file_storage.delete(url)
            except Exception as error:
                logger.warning(f"An uploaded file was not deleted: {type(error).__name__}")
        return JSONResponse({})

    async def _start(self, request: Request) -> JSONResponse:
        session_id: str = request.scope[SESSION_ID_KEY]
        content = await asyncio.to_thread(json.loads, await request.body())
        live = {}
        if content["transport"]["class"] == MoqServer.__name__:
            live = {"on_serving": lambda fingerprints: self._on_serving(session_id, list(fingerprints))}
        transport = from_dict(content["transport"], **live)
        wanted = SessionRequest(session_id, transport.kind, caller=Caller(*content["caller"]))
        async with self._pod.reserve(wanted) as slot:
            await slot.start(transport, content["body"], flow_config=content["flow_config"])
        return JSONResponse({}, 202)

    async def _pick_up(self, request: Request) -> JSONResponse:
        session_id: str = request.scope[SESSION_ID_KEY]
        content = await request.json()
        call = from_dict(content["call"])
        assert isinstance(call, WhatsAppCall)
        waiting = self._pod.held_slot(session_id)  # it waits for its offer, and the call takes it over
        if waiting is not None:
            return JSONResponse({"sdp": await self._answer(WorkerCall(waiting, call, waiting.connect))})
        connected = asyncio.Event()
        wanted = SessionRequest(session_id, TransportKind.WHATSAPP, content["max_seconds"])
        async with self._pod.reserve(wanted) as slot:
            sdp = await self._answer(WorkerCall(slot, call, _setter(connected)))
            slot.background_run = asyncio.ensure_future(self._run(slot, call, connected))
        return JSONResponse({"sdp": sdp})

    async def _answer(self, call: WorkerCall) -> str:
        session_id = call.slot.session.id
        self._calls[session_id] = call

        async def forget(outcome: Outcome) -> None:
            self._calls.pop(session_id, None)

        call.slot.add_closer(forget)
        return await call.slot.pick_up(call.offer)

    async def _run(self, slot: LocalSlot, call: WhatsAppCall, connected: asyncio.Event) -> None:
        connecting = asyncio.ensure_future(connected.wait())
        try:
            if await slot.wait(connecting) is None:
                await slot.run(call, None)
            await slot.hang_up()
        finally:
            connecting.cancel()

    async def _connect(self, request: Request) -> JSONResponse:
        connecting = asyncio.ensure_future(self._call(request).connect())
        self._connecting.add(connecting)
        connecting.add_done_callback(self._connecting.discard)
        return JSONResponse({})

    async def _hang_up(self, request: Request) -> JSONResponse:
        await self._call(request).slot.hang_up()
        return JSONResponse({})

    def _call(self, request: Request) -> WorkerCall:
        session_id: str = request.scope[SESSION_ID_KEY]
        if session_id not in self._calls:
            raise UnknownSession(session_id)
        return self._calls[session_id]


@dataclass(frozen=True)
class WorkerCall:
    """A WhatsApp call that was answered; ``connect`` gives it to the bot."""

    slot: LocalSlot
    offer: WhatsAppCall
    connect: Callable[[], Coroutine[Any, Any, None]]


def _setter(event: asyncio.Event) -> Callable[[], Coroutine[Any, Any, None]]:
    async def set_event() -> None:
        event.set()

    return set_event


async def _refuse(request: Request, refusal: Exception) -> JSONResponse:
    assert isinstance(refusal, Refusal)
    return JSONResponse(refusal.body(), refusal.status)
