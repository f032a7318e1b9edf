"""Who runs sessions. Above this line nobody knows whether the bot is in this process; below it, nobody knows routes.

:class:`Pod` and :class:`SessionSlot` are what routes, the gateway and WhatsApp know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.routing import BaseRoute

from pipecat_base.sessions.outcome import Outcome, Report
from pipecat_base.sessions.registry import Closer, SessionRegistry
from pipecat_base.sessions.transports import UNKNOWN, Caller, Transport, TransportKind, WhatsAppCall


@dataclass(frozen=True)
class BotDescription:
    """What a pod's bot is, and what it can do here.

    Attributes:
        name: What logs and errors call it.
        file: The name of its file.
        webrtc_problem: Why it takes no WebRTC offers, or None.
        has_file_storage: Whether it has ``create_file_storage()``.
        has_app: Whether it has asked for an app to add routes to.
        routes: The bot's own.
    """

    name: str
    file: str
    webrtc_problem: str | None
    has_file_storage: bool
    has_app: bool
    routes: Sequence[BaseRoute]


@dataclass(frozen=True)
class SessionRequest:
    """Who wants a place.

    Attributes:
        max_seconds: The request's own limit.
        gives_way: Whether it gives its place up, while it waits for its peer, to a session whose peer is there.
    """

    session_id: str
    transport: TransportKind
    max_seconds: float | None = None
    gives_way: bool = False
    caller: Caller = UNKNOWN


class SessionSlot(Protocol):
    """One session's place, held while the scope of :meth:`Pod.reserve` is open."""

    async def run(self, transport: Transport, body: Any, *, flow_config: str | None = None) -> Report:
        """Run the bot to its end.

        Raises:
            Refusal: it cannot be run: no offer came, or what it needs is not installed here.
        """

    async def start(self, transport: Transport, body: Any) -> None:
        """Run the bot; it and its place go on after this, and after the scope.

        Raises:
            Refusal: it failed before its arguments were made.
        """

    async def pick_up(self, call: WhatsAppCall) -> str:
        """The SDP that answers a call; :meth:`run` has the bot talk on it.

        Raises:
            Malformed: it cannot be answered.
        """

    async def hang_up(self) -> None:
        """The caller has hung up: close what :meth:`pick_up` has opened. The bot is told by its transport."""

    async def wait(self, *events: asyncio.Future[Any]) -> Outcome | None:
        """Keep the place until the first of ``events`` is done: None then, else how the session has ended."""

    async def until_over(self) -> None:
        """Wait for the end of what :meth:`start` has begun."""

    def on_end(self, closer: Closer) -> None:
        """Close something with the session."""

    def caller_left(self) -> None:
        """Whoever started it is gone: that ends it while it still waits for its offer."""


class Pod(Protocol):
    """Runs sessions.

    Attributes:
        about: Known from the start.
        registry: What runs here.
    """

    about: BotDescription
    registry: SessionRegistry

    @property
    def takes_files(self) -> bool:
        """Whether there is a storage for uploads. Known once it is open."""

    def outdated(self) -> Collection[str]:
        """Ids of sessions that have code from before a change."""

    async def open(self) -> Mapping[str, Any]:
        """Set the bot up; what its lifespans yield for requests.

        Raises:
            StartupError: it cannot be set up.
        """

    async def warm_up(self, *, webrtc: bool) -> None:
        """Import what the first caller would wait for; WebRTC's part if ``webrtc``, or if the bot speaks of it."""

    async def ready(self) -> dict[str, Any]:
        """The bot's own word on its readiness: ``{"ready": bool, ...}``."""

    def reserve(self, request: SessionRequest) -> AbstractAsyncContextManager[SessionSlot]:
        """Hold a place; leaving the scope frees it, whatever happened.

        Raises:
            Refusal: it was not admitted.
        """

    async def offer(self, request: SessionRequest, content: Any) -> dict[str, str]:
        """The answer ``{sdp, type, pc_id}`` to a WebRTC offer, as a client sends it.

        It renegotiates the connection that it names, takes over its session, or begins one.

        Raises:
            Refusal: it was not admitted, or cannot be answered. Nothing is left behind.
        """

    async def trickle(self, content: Any) -> None:
        """Add ICE candidates, as a client sends them.

        Raises:
            Refusal: they are malformed, or for no connection of this pod.
        """

    async def ice_servers(self) -> list[dict[str, Any]] | None:
        """What clients should use as well, ``urls``, ``username`` and ``credential`` of each; None without any."""

    async def why_nots(self) -> Mapping[str, str | None]:
        """By capability of the platform's, why it is missing here, or None. Imports what sessions get."""

    def log_features(self) -> None:
        """Log the summary of what is possible here, when there is time for it."""

    async def close(self) -> None:
        """``teardown()``, and the end of whatever goes on in the background."""

    def stop(self) -> None:
        """End what goes on in the background. The bot is not asked."""
