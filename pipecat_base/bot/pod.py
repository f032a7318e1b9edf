"""The bot in this process: nothing is copied on the way to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from pipecat_base.bot import moq, websocket, whatsapp
from pipecat_base.bot.arguments import ArgumentFactory, Arguments
from pipecat_base.bot.installed import NO_WEBRTC
from pipecat_base.bot.lifespan import BotLifespan
from pipecat_base.bot.memory import MemoryRelease
from pipecat_base.bot.readiness import Readiness
from pipecat_base.bot.runner import BotRunner
from pipecat_base.bot.spans import Spans
from pipecat_base.bot.webrtc import WebRTC
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
    from pipecat_base.bot.webrtc.connections import PeerConnection


SPANS_TIMEOUT = 2.0
"""Seconds that the last spans get at the end."""


class LocalPod:
    """Runs the bot in this process.

    Args:
        webrtc: None where it is not installed, or its arguments cannot be built.
        memory: Releases it after each session; None when it is not to.
        features: Gives what looks at what is possible here.
        expects_webrtc: Tells whether the bot's sources speak of it.
        hide: Called with a session's id and the URL that none of its log lines must show.
    """

    def __init__(
        self,
        about: BotDescription,
        registry: SessionRegistry,
        runs: BotRunner,
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
    ) -> None:
        self.about = about
        self.registry = registry
        self.runs = runs
        self.arguments = arguments
        self.hide = hide
        self._lifespan = lifespan
        self._readiness = readiness
        self._webrtc = webrtc
        self._memory = memory
        self._expects_webrtc = expects_webrtc
        self._features = features
        self._spans = spans
        self._reservations = SlotReservations(registry)

    @property
    def takes_files(self) -> bool:
        return self._lifespan.file_storage is not None

    def outdated(self) -> tuple[str, ...]:
        return ()

    async def open(self) -> Mapping[str, Any]:
        self._spans.open()
        await self._lifespan.set_up()
        self.arguments.file_storage = self._lifespan.file_storage
        self._keep_what_is_there()
        return self._lifespan.state

    async def warm_up(self, *, webrtc: bool) -> None:
        await self.arguments.resolve()
        self._keep_what_is_there()
        if self._webrtc is not None and (webrtc or self._expects_webrtc()):
            await self._webrtc.load()
            self._keep_what_is_there()

    def _keep_what_is_there(self) -> None:
        """Unless the bot has been called already: what it holds is not to be kept."""
        was_called = self.registry.past() or any(
            session.state is not SessionState.ADMITTED for session in self.registry
        )
        if self._memory is not None and not was_called:
            self._memory.keep_what_is_there()

    async def ready(self) -> dict[str, Any]:
        return await self._readiness.request()

    def reserve(self, request: SessionRequest) -> AbstractAsyncContextManager[LocalSlot]:
        return self._reservations.reserve(request, lambda session: LocalSlot(self, session))

    async def offer(self, request: SessionRequest, content: Any) -> dict[str, str]:
        parts = await self.webrtc().load()
        offer = parts.parse_offer(content)
        if offer.pc_id is not None and (parts.peers.knows(offer.pc_id) or not parts.calls.has(request.session_id)):
            return parts.peers.answer(await parts.peers.renegotiate(offer))
        # Without a name, or with that of a connection that its session has lost.
        with self.registry.keeping_place(request.session_id):
            return await parts.calls.offer(
                request.session_id, offer, max_seconds=request.max_seconds, caller=request.caller
            )

    async def trickle(self, content: Any) -> None:
        parts = await self.webrtc().load()
        await parts.peers.trickle(parts.parse_trickle(content))

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        return None if self._webrtc is None else await self._webrtc.configured_ice_servers()

    async def why_nots(self) -> Mapping[str, str | None]:
        return await asyncio.to_thread(lambda: self._features().capabilities())

    def log_features(self) -> None:
        log = self._features().log_features_summary
        threading.Thread(target=log, name="features", daemon=True).start()

    async def all_ice_servers(self) -> list[dict[str, Any]] | None:
        """Those that peers use; None where there are no peers."""
        if self._webrtc is None:
            return None
        await self._webrtc.load()
        return await self._webrtc.ice_servers()

    def give_ice_servers(self, servers: list[dict[str, Any]] | None) -> None:
        """Use these from now on, and look nowhere; None changes nothing."""
        if self._webrtc is not None and servers is not None:
            self._webrtc.given_ice_servers = servers

    async def close(self) -> None:
        await self._lifespan.tear_down()
        await asyncio.to_thread(self._spans.close, SPANS_TIMEOUT)

    def stop(self) -> None:
        if self._webrtc is not None:
            self._webrtc.close()

    def webrtc(self, session_id: str | None = None) -> WebRTC:
        """What answers offers.

        Raises:
            NotSupported: there is none here.
        """
        if self._webrtc is None:
            raise NotSupported(self.about.webrtc_problem or NO_WEBRTC, session_id=session_id)
        return self._webrtc


class LocalSlot(HeldSlot):
    """A place in this process."""

    def __init__(self, pod: LocalPod, session: Session) -> None:
        super().__init__(pod.registry, session)
        self._pod = pod
        self._peer: PeerConnection | None = None

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        pod, session = self._pod, self.session
        if isinstance(transport, PendingWebRTC):
            calls = (await pod.webrtc(session.id).load()).calls
            return await calls.wait(session, transport, body, flow_config=flow_config, caller_left=self._caller_left)
        if isinstance(transport, WhatsAppCall):
            return await self._run_call(transport)
        if isinstance(transport, WebSocketTransport):
            return await self._run_stream(transport, body, flow_config)
        return await pod.runs.run(session, await self._arguments_for(transport, body, flow_config))

    async def _run_stream(self, stream: WebSocketTransport, body: Any, flow_config: str | None) -> Report:
        arguments = await self._pod.arguments.websocket(
            self.session.id, body, stream.websocket, stream.transport_type, flow_config=flow_config
        )
        await stream.websocket.accept()
        if stream.transport_type is None:
            websocket.listen(stream.websocket, self._note_caller)
        self.session.on_end(lambda outcome: websocket.close(stream.websocket, outcome))
        return await self._pod.runs.run(self.session, arguments)

    def _note_caller(self, call: Mapping[str, str]) -> None:
        logger.info(f"The call is {call['provider']}'s {call['call_id']}")
        self._pod.runs.emit(self.session.id, "caller", call)

    async def _run_call(self, call: WhatsAppCall) -> Report:
        from pipecat_base.bot.webrtc.sessions import run_on

        assert self._peer is not None, "pick_up() comes before run()"
        if isinstance(call.fields.get("id"), str):
            self._pod.runs.emit(self.session.id, "caller", {"provider": "whatsapp", "call_id": call.fields["id"]})
        fields = whatsapp.body_of(call.fields)
        arguments = await self._pod.arguments.webrtc(self.session.id, fields, self._peer.connection)
        return await run_on(self._pod.runs, self.session, arguments, self._peer)

    async def pick_up(self, call: WhatsAppCall) -> str:
        """The SDP that answers the call."""
        whatsapp.body_of(call.fields)
        parts = await self._pod.webrtc().load()
        offer = parts.parse_offer(call.offer)
        self._peer = await parts.peers.open(offer)
        return str(self._peer.connection.get_answer()["sdp"])

    async def hang_up(self) -> None:
        """Close the call's connection."""
        if self._peer is not None:
            await (await self._pod.webrtc().load()).peers.close(self._peer)

    async def _arguments_for(self, transport: Transport, body: Any, flow_config: str | None) -> Arguments:
        factory, session_id = self._pod.arguments, self.session.id
        if isinstance(transport, DailyRoom):
            return await factory.daily(session_id, body, transport.url, transport.token, flow_config=flow_config)
        if isinstance(transport, MoqRelay):
            self._pod.hide(session_id, transport.url)
            return await factory.moq(session_id, body, transport.url, transport.namespace, flow_config=flow_config)
        if isinstance(transport, LiveKitRoom):
            values = {"room_name": transport.room_name, "url": transport.url, "token": transport.token}
            return await factory.other(session_id, body, "LiveKitRunnerArguments", values)
        if isinstance(transport, MoqServer):
            return await self._serving_moq(transport, body)
        return await factory.plain(session_id, body, flow_config=flow_config)

    async def _serving_moq(self, server: MoqServer, body: Any) -> Arguments:
        """Those of a bot that serves MoQ; pipecat writes into them what the caller has to know."""
        values, ready = moq.served(server.namespace, server.port)
        arguments = await self._pod.arguments.other(self.session.id, body, "MOQRunnerArguments", values)
        self.on_end(moq.tell_once(ready, arguments, server.on_serving))
        return arguments
