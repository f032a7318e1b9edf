"""What ``bot(args)`` receives, built for whichever pipecat the bot's environment has."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from pipecat_base.bot import argument_types
from pipecat_base.bot.argument_types import CLOUD, RELAY, RUNNER, ArgumentTypes
from pipecat_base.errors import MoqRefused, NotSupported
from pipecat_base.logs.escaping import logged
from pipecat_base.logs.redaction import Redaction

if TYPE_CHECKING:
    from starlette.websockets import WebSocket


class Arguments(Protocol):
    """The fields that every session's arguments have, whatever package they come from."""

    session_id: str | None
    body: Any
    flow_config: str | None


class ArgumentFactory:
    """Builds the arguments of each session.

    Args:
        wants_cloud: Whether the bot's sources mention pipecatcloud. Importing it costs half a second on a small
            machine, so it is left alone for a bot that never looks at its classes.
        guard: Entered around imports made here. pipecatcloud removes every log sink when it is imported.
        webrtc_problem: Why arguments of WebRTC sessions cannot be built, or None.
    """

    def __init__(
        self,
        *,
        wants_cloud: bool,
        guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        webrtc_problem: str | None = None,
    ) -> None:
        self.webrtc_problem = webrtc_problem
        self.file_storage: Any = None
        self._wants_cloud = wants_cloud
        self._guard = guard
        self._types: ArgumentTypes | None = None
        self._resolving = threading.Lock()

    def types(self) -> ArgumentTypes:
        """The classes; imports what they come from. Safe in any thread."""
        with self._resolving:
            if not self._is_resolved():
                with self._guard():
                    self._types = argument_types.load(cloud=self._is_cloud_wanted())
            assert self._types is not None
            return self._types

    async def resolve(self) -> ArgumentTypes:
        """The classes; imports what they come from, where that is still to be done."""
        if self._is_resolved():
            assert self._types is not None
            return self._types
        # Importing pipecat for the first time takes long enough to be heard in other calls.
        return await asyncio.to_thread(self.types)

    async def plain(self, session_id: str, body: Any, *, flow_config: str | None = None) -> Arguments:
        """Neither room nor socket: the bot reaches its callers by itself."""
        types = await self.resolve()
        return self._build(types.plain, {}, session_id, body, flow_config=flow_config)

    async def daily(
        self, session_id: str, body: Any, room_url: str, token: str | None, *, flow_config: str | None = None
    ) -> Arguments:
        """A Daily room to join; ``token`` may be None, for a public room."""
        types = await self.resolve()
        values = {"room_url": room_url, "token": token}
        return self._build(types.daily, values, session_id, body, flow_config=flow_config)

    async def websocket(
        self,
        session_id: str,
        body: Any,
        websocket: WebSocket,
        transport_type: str | None,
        *,
        flow_config: str | None = None,
    ) -> Arguments:
        """An accepted WebSocket from which nothing has been read.

        ``transport_type`` None lets pipecat recognise a phone provider by its first messages.
        """
        types = await self.resolve()
        values = {"websocket": websocket}
        return self._build(
            types.websocket, values, session_id, body, transport_type=transport_type, flow_config=flow_config
        )

    async def webrtc(self, session_id: str, body: Any, connection: Any, *, flow_config: str | None = None) -> Arguments:
        """A SmallWebRTC peer connection that has been answered."""
        types = await self.resolve()
        values = {"webrtc_connection": connection}
        return self._build(types.webrtc, values, session_id, body, flow_config=flow_config)

    async def moq(
        self, session_id: str, body: Any, relay_url: str, namespace: str, *, flow_config: str | None = None
    ) -> Arguments:
        """A MoQ relay to dial.

        Raises:
            MoqRefused: what is installed here does not take them. The URL is not in the reason.
        """
        types = await self.resolve()
        values = {**RELAY, "relay_url": relay_url, "namespace": namespace}
        try:
            return self._build(types.moq, values, session_id, body, flow_config=flow_config)
        except Exception as error:
            redact = Redaction()
            redact.hide(session_id, relay_url)
            said = logged(redact(session_id, str(error)))
            reason = f"its session arguments did not build ({type(error).__name__}: {said})"
            raise MoqRefused(reason, session_id=session_id) from None

    async def other(self, session_id: str, body: Any, type_name: str, values: dict[str, Any]) -> Arguments:
        """A class of ``pipecat.runner.types`` that pipecatcloud has no name for.

        Raises:
            NotSupported: this pipecat does not have it either.
        """
        await self.resolve()
        module = sys.modules.get(RUNNER) or await asyncio.to_thread(self._import_runner)
        type_ = getattr(module, type_name, None)
        if type_ is None:
            raise NotSupported(f"The pipecat-ai that is installed here has no {type_name}.", session_id=session_id)
        return self._build(type_, values, session_id, body)

    def _build(
        self, type_: type[Any] | None, values: Mapping[str, Any], session_id: str, body: Any, **later: Any
    ) -> Arguments:
        if type_ is None:
            raise NotSupported("What is installed here has no arguments for this transport.", session_id=session_id)
        arguments: Arguments = argument_types.build(
            type_,
            values,
            session_id=session_id,
            body=body,
            file_storage=self.file_storage,
            **{"handle_sigint": False, "handle_sigterm": False, "flow_config": None, **later},
        )
        return arguments

    def _is_resolved(self) -> bool:
        return self._types is not None and (self._types.from_cloud or CLOUD not in sys.modules)

    def _is_cloud_wanted(self) -> bool:
        return self._wants_cloud or CLOUD in sys.modules

    def _import_runner(self) -> Any:
        with self._guard(), contextlib.suppress(ImportError):
            return importlib.import_module(RUNNER)
        return None
