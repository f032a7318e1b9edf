"""From a start to a running bot: the place where it meets its caller becomes its arguments.

Starts come from the platform (``POST /bot``) and from the gateway (``POST /start``). Callers that come by
themselves, over a WebSocket, a WebRTC offer or WhatsApp, have routes of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pipecat_base.arguments import ArgumentFactory, Arguments
from pipecat_base.errors import NotSupported
from pipecat_base.outcomes import Report
from pipecat_base.sessions import Sessions, Transport
from pipecat_base.webrtc import NOT_INSTALLED, WebRTC


@dataclass(frozen=True)
class Nowhere:
    """The bot reaches its callers by itself."""

    transport: ClassVar = Transport.PLAIN


@dataclass(frozen=True)
class DailyRoom:
    """``token`` may be None, for a public room."""

    url: str
    token: str | None
    transport: ClassVar = Transport.DAILY


@dataclass(frozen=True)
class OfferToCome:
    """The caller will offer a WebRTC connection to ``/api/offer``, with the session's id."""

    transport: ClassVar = Transport.WEBRTC


@dataclass(frozen=True)
class MoqRelay:
    """A MoQ relay that the bot dials. Its URL holds a token."""

    url: str = field(repr=False)
    namespace: str
    transport: ClassVar = Transport.MOQ


@dataclass(frozen=True)
class OtherRoom:
    """A place that pipecat's runner knows and the platform does not: LiveKit, MoQ.

    ``arguments_type`` is the name of a class of ``pipecat.runner.types``, ``values`` are its fields. ``tell`` gets the
    arguments before the bot does: pipecat writes into them what the caller has to know.
    """

    transport: Transport
    arguments_type: str
    values: dict[str, Any]
    tell: Callable[[Arguments], None] | None = None


Place = Nowhere | DailyRoom | OfferToCome | MoqRelay | OtherRoom


@dataclass(frozen=True)
class Start:
    """What starts a session."""

    session_id: str
    place: Place = field(default_factory=Nowhere)
    body: Any = field(default_factory=dict)
    flow_config: str | None = None
    max_seconds: float | None = None


class Dispatch:
    """Runs what is started.

    Args:
        webrtc: None where it is not installed.
        hide: Called with a session's id and the URL that none of its log lines must show.
    """

    def __init__(
        self, sessions: Sessions, arguments: ArgumentFactory, webrtc: WebRTC | None, *, hide: Callable[[str, str], None]
    ) -> None:
        self._sessions = sessions
        self._arguments = arguments
        self._webrtc = webrtc
        self._hide = hide

    @property
    def takes_offers(self) -> bool:
        """Whether WebRTC is installed."""
        return self._webrtc is not None

    async def run(self, start: Start, until_gone: Callable[[], Coroutine[Any, Any, Any]] | None = None) -> Report:
        """One session, from admission to its end. While it waits for its offer, ``until_gone`` ends it.

        Raises:
            Refusal: it was not admitted, no offer came, or what it needs is not installed here.
        """
        if isinstance(start.place, OfferToCome):
            return await self._run_with_offer(start, until_gone or asyncio.Event().wait)
        transport = start.place.transport
        async with self._sessions.admit(start.session_id, transport, max_seconds=start.max_seconds) as session:
            return await self._sessions.run(session, await self._arguments_for(start))

    async def _run_with_offer(self, start: Start, until_gone: Callable[[], Coroutine[Any, Any, Any]]) -> Report:
        if self._webrtc is None:
            raise NotSupported(NOT_INSTALLED, session_id=start.session_id)
        calls = (await self._webrtc.load()).calls
        return await calls.wait(
            start.session_id,
            start.body,
            flow_config=start.flow_config,
            max_seconds=start.max_seconds,
            caller_gone=until_gone(),
        )

    async def _arguments_for(self, start: Start) -> Arguments:
        place = start.place
        if isinstance(place, DailyRoom):
            return await self._arguments.daily(
                start.session_id, start.body, place.url, place.token, flow_config=start.flow_config
            )
        if isinstance(place, MoqRelay):
            self._hide(start.session_id, place.url)
            return await self._arguments.moq(
                start.session_id, start.body, place.url, place.namespace, flow_config=start.flow_config
            )
        if isinstance(place, OtherRoom):
            arguments = await self._arguments.other(start.session_id, start.body, place.arguments_type, place.values)
            if place.tell is not None:
                place.tell(arguments)
            return arguments
        return await self._arguments.plain(start.session_id, start.body, flow_config=start.flow_config)
