"""What ``bot(args)`` receives, built for whichever pipecat the bot's environment has.

Bots test their arguments with ``isinstance`` against ``pipecatcloud.agent.*SessionArguments`` or
``pipecat.runner.types.*RunnerArguments``; the former subclass the latter. Both changed over the years: a field that
one version takes in its constructor raises TypeError in another. So an object is built from its required fields
alone and everything else is set as an attribute afterwards. Where neither package is installed, the dataclasses at
the end of this module stand in, with the same names.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pipecat_base.errors import NotSupported

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

CLOUD = "pipecatcloud.agent"
RUNNER = "pipecat.runner.types"


class Arguments(Protocol):
    """The fields that every session's arguments have, whatever package they come from."""

    session_id: str | None
    body: Any


@dataclass(frozen=True)
class ArgumentTypes:
    """The classes to instantiate, by transport."""

    plain: type[Any]
    daily: type[Any]
    websocket: type[Any]
    webrtc: type[Any]

    @classmethod
    def from_cloud(cls, module: Any) -> ArgumentTypes:
        """Take pipecatcloud's. Some versions do not have the SmallWebRTC one."""
        return cls(
            plain=module.PipecatSessionArguments,
            daily=module.DailySessionArguments,
            websocket=module.WebSocketSessionArguments,
            webrtc=getattr(module, "SmallWebRTCSessionArguments", None) or module.SmallWebRTCRunnerArguments,
        )

    @classmethod
    def from_runner(cls, module: Any) -> ArgumentTypes:
        """Take pipecat's."""
        return cls(
            plain=module.RunnerArguments,
            daily=module.DailyRunnerArguments,
            websocket=module.WebSocketRunnerArguments,
            webrtc=module.SmallWebRTCRunnerArguments,
        )


class ArgumentFactory:
    """Builds the arguments of each session.

    Args:
        wants_cloud: Whether the bot's sources mention pipecatcloud. Importing it costs half a second on a small
            machine, so it is left alone for a bot that never looks at its classes.
        guard: Entered around imports made here. pipecatcloud removes every log sink when it is imported.
    """

    def __init__(
        self,
        *,
        wants_cloud: bool,
        guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.file_storage: Any = None
        self._wants_cloud = wants_cloud
        self._guard = guard
        self._types: ArgumentTypes | None = None
        self._from_cloud = False
        self._resolving = asyncio.Lock()

    async def plain(self, session_id: str, body: Any, *, flow_config: Any = None) -> Arguments:
        """Neither room nor socket: the bot reaches its callers by itself."""
        types = await self._resolve()
        return self._build(types.plain, {}, session_id, body, flow_config=flow_config)

    async def daily(
        self, session_id: str, body: Any, room_url: str, token: str | None, *, flow_config: Any = None
    ) -> Arguments:
        """A Daily room to join; ``token`` may be None, for a public room."""
        types = await self._resolve()
        return self._build(
            types.daily, {"room_url": room_url, "token": token}, session_id, body, flow_config=flow_config
        )

    async def websocket(
        self, session_id: str, body: Any, websocket: WebSocket, transport_type: str | None
    ) -> Arguments:
        """An accepted WebSocket from which nothing has been read.

        ``transport_type`` None lets pipecat recognise a phone provider by its first messages.
        """
        types = await self._resolve()
        values = {"websocket": websocket}
        return self._build(types.websocket, values, session_id, body, transport_type=transport_type)

    async def webrtc(self, session_id: str, body: Any, connection: Any, *, flow_config: Any = None) -> Arguments:
        """A SmallWebRTC peer connection that has been answered."""
        types = await self._resolve()
        values = {"webrtc_connection": connection}
        return self._build(types.webrtc, values, session_id, body, flow_config=flow_config)

    async def other(self, session_id: str, body: Any, type_name: str, values: dict[str, Any]) -> Arguments:
        """A class of ``pipecat.runner.types`` that pipecatcloud has no name for.

        Raises:
            NotSupported: this pipecat does not have it either.
        """
        await self._resolve()
        module = await asyncio.to_thread(self._load, cloud=False)
        type_ = getattr(module, type_name, None)
        if type_ is None:
            raise NotSupported(f"The pipecat-ai that is installed here has no {type_name}.", session_id=session_id)
        return self._build(type_, values, session_id, body)

    def _build(self, type_: type[Any], values: dict[str, Any], session_id: str, body: Any, **later: Any) -> Arguments:
        known = {**values, "session_id": session_id}
        needed = [
            f.name
            for f in dataclasses.fields(type_)
            if f.init
            and (f.name in values or (f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING))
        ]
        arguments: Arguments = type_(**{name: known.get(name) for name in needed})
        attributes = {
            **known,
            "body": body,
            "file_storage": self.file_storage,
            "handle_sigint": False,
            "handle_sigterm": False,
            **later,
        }
        for name, value in attributes.items():
            setattr(arguments, name, value)
        return arguments

    async def _resolve(self) -> ArgumentTypes:
        if self._types is not None and (self._from_cloud or CLOUD not in sys.modules):
            return self._types
        async with self._resolving:
            cloud = CLOUD in sys.modules or self._wants_cloud
            already = (CLOUD if cloud else RUNNER) in sys.modules
            # Importing pipecat for the first time takes long enough to be heard in other calls.
            module = self._load(cloud) if already else await asyncio.to_thread(self._load, cloud)
            if module is None:
                self._types = OWN_TYPES
            elif module.__name__ == CLOUD:
                self._types, self._from_cloud = ArgumentTypes.from_cloud(module), True
            else:
                self._types = ArgumentTypes.from_runner(module)
            return self._types

    def _load(self, cloud: bool) -> Any:
        with self._guard():
            for name in [CLOUD, RUNNER] if cloud else [RUNNER]:
                # find_spec of the top package runs none of it.
                if name in sys.modules or importlib.util.find_spec(name.partition(".")[0]) is not None:
                    with contextlib.suppress(ImportError):
                        return importlib.import_module(name)
        return None


@dataclass
class RunnerArguments:
    """Stands in for ``pipecat.runner.types.RunnerArguments`` where pipecat is not installed."""

    handle_sigint: bool = field(default=False, init=False)
    handle_sigterm: bool = field(default=False, init=False)
    pipeline_idle_timeout_secs: float | None = field(default=300, init=False)
    body: Any = field(default_factory=dict, init=False)
    session_id: str | None = field(default=None, init=False)
    file_storage: Any = field(default=None, init=False)


@dataclass
class DailyRunnerArguments(RunnerArguments):
    """A Daily room."""

    room_url: str
    token: str | None


@dataclass
class WebSocketRunnerArguments(RunnerArguments):
    """A WebSocket."""

    websocket: Any
    transport_type: str | None = field(default=None, init=False)


@dataclass
class SmallWebRTCRunnerArguments(RunnerArguments):
    """A WebRTC peer."""

    webrtc_connection: Any


OWN_TYPES = ArgumentTypes(
    plain=RunnerArguments,
    daily=DailyRunnerArguments,
    websocket=WebSocketRunnerArguments,
    webrtc=SmallWebRTCRunnerArguments,
)
