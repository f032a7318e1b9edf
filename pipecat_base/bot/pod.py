"""A pod that runs the bot in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from pipecat_base.bot import moq, websocket, whatsapp
from pipecat_base.bot.arguments import ArgumentFactory
from pipecat_base.bot.installed import NO_WEBRTC
from pipecat_base.bot.leftovers import Leftovers
from pipecat_base.bot.lifespan import BotLifespan
from pipecat_base.bot.memory import MemoryRelease
from pipecat_base.bot.readiness import Readiness
from pipecat_base.bot.spans import Spans
from pipecat_base.errors import NotSupported
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.outcome import Report
from pipecat_base.sessions.pod import BotDescription, SessionRequest
from pipecat_base.sessions.registry import Session, SessionRegistry, SessionState
from pipecat_base.sessions.slots import HeldSlot, SlotReservations
from pipecat_base.sessions.transports import (
    DailyRoom,
    LiveKitRoom,
    MoqRelay,
    MoqServer,
    PendingWebRTC,
    Transport,
    WebSocketTransport,
    WhatsAppCall,
)

if TYPE_CHECKING:
    from pipecat_base.bot.features import FeatureManager
    from pipecat_base.bot.runner import BotRunner
    from pipecat_base.bot.webrtc import WebRTC
    from pipecat_base.bot.webrtc.connections import PeerConnection


SPANS_TIMEOUT_SECONDS = 2.0


class LocalPod:
    """Runs the bot in this process.

    Args:
        webrtc: None if it is not installed, or its arguments cannot be built.
        hide: Called with a session's id and a URL that no log line of the session may show.
        agent_name: Calls that Twilio says are for another agent are ended; None takes them all.
    """

    def __init__(
        self,
        about: BotDescription,
        registry: SessionRegistry,
        runner: BotRunner,
        arguments: ArgumentFactory,
        lifespan: BotLifespan,
        readiness: Readiness,
        webrtc: WebRTC | None,
        *,
        memory: MemoryRelease | None,
        expects_webrtc: Callable[[], bool],
        features: Callable[[], FeatureManager],
        hide: Callable[[str, str], None],
        spans: Spans,
        leftovers: Leftovers,
        agent_name: str | None = None,
    ) -> None:
        self.about = about
        self.registry = registry
        self.runner = runner
        self.arguments = arguments
        self.hide = hide
        self.leftovers = leftovers
        self.agent_name = agent_name
        self._lifespan = lifespan
        self._readiness = readiness
        self._webrtc = webrtc
        self._memory = memory
        self._expects_webrtc = expects_webrtc
        self._features = features
        self._spans = spans
        self._reservations: SlotReservations[LocalSlot] = SlotReservations(registry)

    @property
    def takes_files(self) -> bool:
        return self._lifespan.file_storage is not None

    def outdated_sessions(self) -> tuple[str, ...]:
        return ()

    async def open(self) -> Mapping[str, Any]:
        self._spans.open()
        await self._lifespan.set_up()
        self.leftovers.begin()
        self.arguments.file_storage = self._lifespan.file_storage
        self._freeze_memory()
        return self._lifespan.state

    async def warm_up(self, *, webrtc: bool) -> None:
        await self.arguments.resolve()
        self._freeze_memory()
        if self._webrtc is not None and (webrtc or self._expects_webrtc()):
            await self._webrtc.load()
            self._freeze_memory()

    def _freeze_memory(self) -> None:
        """Freeze the heap, unless the bot has run already and holds objects that will be freed."""
        was_called = self.registry.past() or any(
            session.state is not SessionState.ADMITTED for session in self.registry
        )
        if self._memory is not None and not was_called:
            self._memory.freeze()

    async def ready(self) -> dict[str, Any]:
        return await self._readiness.request()

    def reserve(self, request: SessionRequest) -> AbstractAsyncContextManager[LocalSlot]:
        return self._reservations.reserve(request, lambda session: LocalSlot(self, session))

    def held_slot(self, session_id: str) -> LocalSlot | None:
        return self._reservations.get(session_id)

    def take_over(self, session_id: str) -> LocalSlot | None:
        return self._reservations.take_over(session_id)

    async def offer(self, request: SessionRequest, content: Any) -> dict[str, str]:
        parts = await self.webrtc().load()
        offer = parts.parse_offer(content)
        if offer.pc_id is not None and (parts.peers.knows(offer.pc_id) or not parts.sessions.has(request.session_id)):
            return parts.peers.answer(await parts.peers.renegotiate(offer))
        # The offer names no connection, or one that its session has lost.
        with self.registry.protect_from_eviction(request.session_id):
            return await parts.sessions.offer(
                request.session_id, offer, max_seconds=request.max_seconds, caller=request.caller
            )

    async def trickle(self, content: Any) -> None:
        parts = await self.webrtc().load()
        await parts.peers.trickle(parts.parse_trickle(content))

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        return None if self._webrtc is None else await self._webrtc.configured_ice_servers()

    async def capability_problems(self) -> Mapping[str, str | None]:
        return await asyncio.to_thread(lambda: self._features().capabilities())

    def log_features(self) -> None:
        log = self._features().log_features_summary
        threading.Thread(target=log, name="features", daemon=True).start()

    async def all_ice_servers(self) -> list[dict[str, Any]] | None:
        if self._webrtc is None:
            return None
        await self._webrtc.load()
        return await self._webrtc.peers_ice_servers()

    def give_ice_servers(self, servers: list[dict[str, Any]] | None) -> None:
        if self._webrtc is not None and servers is not None:
            self._webrtc.given_ice_servers = servers

    async def wait_for_leftovers(self) -> None:
        await self.leftovers.wait([session.id for session in self.registry.past()])

    async def close(self) -> None:
        await self._lifespan.tear_down()
        await asyncio.to_thread(self._spans.close, SPANS_TIMEOUT_SECONDS)

    def stop(self) -> None:
        if self._webrtc is not None:
            self._webrtc.close()

    def webrtc(self, session_id: str | None = None) -> WebRTC:
        if self._webrtc is None:
            raise NotSupported(self.about.webrtc_problem or NO_WEBRTC, session_id=session_id)
        return self._webrtc


class LocalSlot(HeldSlot):
    def __init__(self, pod: LocalPod, session: Session) -> None:
        super().__init__(pod.registry, session)
        self._pod = pod
        self._peer: PeerConnection | None = None
        self._call: WhatsAppCall | None = None

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        pod, session = self._pod, self.session
        build = pod.arguments.build
        if isinstance(transport, PendingWebRTC):
            offers = (await pod.webrtc(session.id).load()).sessions
            return await offers.wait(session, body, flow_config=flow_config, caller_left=self._disconnected)
        if isinstance(transport, WhatsAppCall):
            return await self._run_whatsapp(transport)
        if isinstance(transport, WebSocketTransport):
            return await self._run_websocket(transport, body, flow_config)
        if isinstance(transport, DailyRoom):
            room = {"room_url": transport.url, "token": transport.token}
            arguments = await build("daily", session.id, body, room, flow_config=flow_config)
        elif isinstance(transport, MoqRelay):
            pod.hide(session.id, transport.url)
            relay = {"relay_url": transport.url, "namespace": transport.namespace}
            arguments = await build("moq", session.id, body, relay, flow_config=flow_config)
        elif isinstance(transport, LiveKitRoom):
            room = {"room_name": transport.room_name, "url": transport.url, "token": transport.token}
            arguments = await pod.arguments.build_runners(
                "LiveKitRunnerArguments", session.id, body, room, flow_config=flow_config
            )
        elif isinstance(transport, MoqServer):
            values, ready = moq.server_values(transport.namespace, transport.port)
            arguments = await pod.arguments.build_runners(
                "MOQRunnerArguments", session.id, body, values, flow_config=flow_config
            )
            self.add_closer(moq.call_when_ready(ready, arguments, transport.on_serving))
        else:
            arguments = await build("plain", session.id, body, flow_config=flow_config)
        return await pod.runner.run(session, arguments)

    async def _run_websocket(self, transport: WebSocketTransport, body: Any, flow_config: str | None) -> Report:
        socket, kind = transport.websocket, transport.transport_type
        arguments = await self._pod.arguments.build(
            "websocket", self.session.id, body, {"websocket": socket}, transport_type=kind, flow_config=flow_config
        )
        await websocket.accept(socket)
        if kind is None:
            websocket.watch_for_call_id(socket, self._emit_caller)
        self.session.add_closer(lambda outcome: websocket.close(socket, outcome))
        return await self._pod.runner.run(self.session, arguments)

    def _emit_caller(self, call: Mapping[str, str], agent: str) -> None:
        if agent and self._pod.agent_name not in (None, agent):
            logger.error(f"The call is ended: {websocket.SERVICE_HOST} names another agent than PIPECAT_AGENT_NAME")
            self._registry.cancel(self.session.id)
        logger.info(f"The call is {call['provider']}'s {call['call_id']}")
        self._pod.runner.emit(self.session.id, "caller", call)

    async def _run_whatsapp(self, call: WhatsAppCall) -> Report:
        from pipecat_base.bot.webrtc.sessions import run_on_peer

        assert self._peer is not None, "pick_up() comes before run()"
        pod, session_id = self._pod, self.session.id
        self._emit_whatsapp(call)
        connection = {"webrtc_connection": self._peer.connection}
        arguments = await pod.arguments.build("webrtc", session_id, whatsapp.body_of(call.fields), connection)
        return await run_on_peer(pod.runner, self.session, arguments, self._peer)

    def _emit_whatsapp(self, call: WhatsAppCall) -> None:
        if isinstance(call.fields.get("id"), str):
            self._pod.runner.emit(self.session.id, "caller", {"provider": "whatsapp", "call_id": call.fields["id"]})

    async def pick_up(self, call: WhatsAppCall) -> str:
        whatsapp.body_of(call.fields)  # refuses a malformed call before a peer is opened
        parts = await self._pod.webrtc().load()
        parts.sessions.expect_call(self.session.id)
        self._call = call
        self._peer = await parts.peers.open(parts.parse_offer(call.offer))
        return str(self._peer.connection.get_answer()["sdp"])

    async def _connect(self) -> None:
        assert self._call is not None, "pick_up() comes before connect()"
        assert self._peer is not None
        self._emit_whatsapp(self._call)
        sessions = (await self._pod.webrtc().load()).sessions
        await sessions.connect(self.session.id, self._peer, whatsapp.body_of(self._call.fields))

    async def hang_up(self) -> None:
        if self._peer is not None:
            await (await self._pod.webrtc().load()).peers.close(self._peer)
