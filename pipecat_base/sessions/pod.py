"""Protocols between routes and whatever runs the bot, in this process or in others."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from starlette.routing import BaseRoute

from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.transports import UNKNOWN_CALLER, Caller, Transport, TransportKind, WhatsAppCall

if TYPE_CHECKING:
    from pipecat_base.sessions.registry import Closer, SessionRegistry


@dataclass(frozen=True)
class BotDescription:
    name: str  # used in logs and errors
    file: str  # the base name
    webrtc_problem: str | None  # the reason why it takes no WebRTC offers
    has_file_storage: bool
    has_app: bool  # has imported the app to add routes to
    routes: Sequence[BaseRoute]


@dataclass(frozen=True)
class SessionRequest:
    """A request for a slot. See :class:`pipecat_base.sessions.registry.Session` for ``is_evictable``."""

    session_id: str
    transport: TransportKind
    max_seconds: float | None = None
    is_evictable: bool = False
    caller: Caller = UNKNOWN_CALLER


class SessionSlot(Protocol):
    """A session's slot, held while the scope of :meth:`Pod.reserve` is open."""

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        """Run the bot to its end, on a call that was answered."""

    async def start(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> None:
        """Run the bot in the background, also after the scope. Raises Refusal if its arguments cannot be made."""

    async def pick_up(self, call: WhatsAppCall) -> str:
        """Answer a call with an SDP, before :meth:`run`. Raises Malformed if its offer is unusable."""

    async def hang_up(self) -> None:
        """Close the connection of :meth:`pick_up`, after the caller hung up; its transport notifies the bot."""

    async def wait(self, *events: asyncio.Future[Any]) -> Outcome | None:
        """Keep the slot until the first of ``events`` is done; an outcome if the session ended instead."""

    async def until_waiting(self) -> None:
        """Wait until the run of a slot from :meth:`Pod.take_over` is ready for a call, or raise UnknownSession."""

    async def connect(self) -> None:
        """Give the call of :meth:`pick_up` to the run that waits in this slot; returns at the session's end."""

    def end(self, outcome: Outcome) -> None:
        """Request the session's end."""

    async def until_ended(self) -> None:
        """Wait for the end of the run that :meth:`start` began."""

    def add_closer(self, closer: Closer) -> None: ...

    def on_disconnect(self) -> None:
        """The client that started the session disconnected: end it if it still waits for its offer."""


class Pod(Protocol):
    """Runs sessions, all of them in ``registry``."""

    about: BotDescription
    registry: SessionRegistry

    @property
    def takes_files(self) -> bool:
        """True if uploads have a storage. Known once the pod is open."""

    def outdated_sessions(self) -> Collection[str]:
        """Ids of sessions that run code from before a change."""

    async def open(self) -> Mapping[str, Any]:
        """Set the bot up; returns the state that its lifespans yield for requests. Raises StartupError."""

    async def warm_up(self, *, webrtc: bool) -> None:
        """Import the modules of a first session; WebRTC's too if ``webrtc``, or if the bot mentions it."""

    async def ready(self) -> dict[str, Any]:
        """Result of the bot's ``readyz()``: ``{"ready": bool, ...}``."""

    def reserve(self, request: SessionRequest) -> AbstractAsyncContextManager[SessionSlot]:
        """Hold a slot; leaving the scope always frees it. Raises Refusal if the session is not admitted."""

    def take_over(self, session_id: str) -> SessionSlot | None:
        """Give the slot of a session that waits for its offer to a call; None without such a session."""

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        """Additional servers for clients, each with ``urls``, ``username`` and ``credential``; None without any."""

    async def capability_problems(self) -> Mapping[str, str | None] | None:
        """By capability of the platform: the reason why it is missing here, or None. Imports sessions' modules.

        None if that failed, and is in the log.
        """

    def log_features(self) -> None: ...

    async def close(self) -> None:
        """Run ``teardown()`` and end all background work."""

    def stop(self) -> None:
        """End background work without involving the bot."""
