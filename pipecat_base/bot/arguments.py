"""The objects that ``bot(args)`` receives, built from the classes of the installed pipecat and pipecatcloud.

Bots test them with ``isinstance``. Fields differ between versions, and a class may refuse unknown ones: only fields of
the connection are passed to the class, all others are set afterwards. Versions are not compared.
Without either package, the dataclasses at the end of this module stand in, with pipecat's names.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, Protocol

from pipecat_base.bot import installed
from pipecat_base.errors import MoqRefused, NotSupported
from pipecat_base.logs.escaping import logged
from pipecat_base.logs.redaction import Redaction

CLOUD = "pipecatcloud.agent"
RUNNER = "pipecat.runner.types"

Kind = Literal["plain", "daily", "websocket", "webrtc", "moq"]
# The bot speaks as "participant_id" and hears "peer_id".
RELAY = {"relay_url": "https://relay", "namespace": "n", "participant_id": "response", "peer_id": "request"}
# By kind of session: pipecat's class, pipecatcloud's, and values with which either must build.
CLASSES: Mapping[Kind, tuple[str, str, Mapping[str, Any]]] = {
    "plain": ("RunnerArguments", "PipecatSessionArguments", {}),
    "daily": ("DailyRunnerArguments", "DailySessionArguments", {"room_url": "https://room", "token": "t"}),
    "websocket": ("WebSocketRunnerArguments", "WebSocketSessionArguments", {"websocket": None}),
    "webrtc": ("SmallWebRTCRunnerArguments", "SmallWebRTCSessionArguments", {"webrtc_connection": None}),
    "moq": ("MOQRunnerArguments", "MOQSessionArguments", RELAY),
}


class Arguments(Protocol):
    session_id: str | None
    body: Any
    flow_config: str | None


@dataclass(frozen=True)
class ArgumentTypes:
    classes: Mapping[Kind, type[Any] | None]
    from_cloud: bool = False

    def problem(self, kind: Kind) -> Exception | None:
        try:
            _build(self.classes[kind], CLASSES[kind][2], session_id="s", body={})
        except Exception as error:
            return error
        return None


def types_from_runner(runner: Any) -> ArgumentTypes:
    found = {kind: getattr(runner, names[0], None) for kind, names in CLASSES.items()}
    return ArgumentTypes(found | {"moq": _without_url_in_repr(found["moq"])})


def types_from_cloud(cloud: Any, runner: Any) -> ArgumentTypes:
    """pipecatcloud's classes; for WebRTC and MoQ, pipecat's stand in. Its module may be None."""
    fallback = types_from_runner(runner).classes
    found = {kind: getattr(cloud, names[1], None) for kind, names in CLASSES.items()}
    found["webrtc"] = found["webrtc"] or fallback["webrtc"]
    found["moq"] = _without_url_in_repr(found["moq"]) or fallback["moq"]
    return ArgumentTypes(found, from_cloud=True)


def load_types(*, cloud: bool) -> ArgumentTypes:
    """Import the classes that are installed; pipecatcloud's only if ``cloud``."""
    runner = _imported(RUNNER)
    module = _imported(CLOUD) if cloud else None
    if module is not None:
        return types_from_cloud(module, runner)
    return types_from_runner(sys.modules[__name__] if runner is None else runner)


class ArgumentFactory:
    """Builds the arguments of each session.

    Args:
        wants_cloud: Import pipecatcloud, which takes half a second on a small machine.
        guard: Entered around imports: pipecatcloud removes every log sink when it is imported.
        default_flow: The flow config of sessions that bring none.
    """

    def __init__(
        self,
        *,
        wants_cloud: bool,
        guard: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        default_flow: str | None = None,
    ) -> None:
        self._default_flow = default_flow
        self.file_storage: Any = None
        self._wants_cloud = wants_cloud
        self._guard = guard
        self._types: ArgumentTypes | None = None
        self._resolving = threading.Lock()

    def types(self) -> ArgumentTypes:
        """Import the classes if that is not done yet. Safe in any thread."""
        with self._resolving:
            # The bot may have imported pipecatcloud since.
            has_cloud = CLOUD in sys.modules
            if self._types is None or (has_cloud and not self._types.from_cloud):
                with self._guard():
                    self._types = load_types(cloud=self._wants_cloud or has_cloud)
            return self._types

    async def resolve(self) -> ArgumentTypes:
        types = self._types
        if types is not None and (types.from_cloud or CLOUD not in sys.modules):
            return types
        # The first import of pipecat takes long enough to be heard in other calls.
        return await asyncio.to_thread(self.types)

    async def build(
        self, kind: Kind, session_id: str, body: Any, values: Mapping[str, Any] | None = None, **later: Any
    ) -> Arguments:
        """Pass ``values`` to the class and set ``later`` afterwards.

        Raises:
            NotSupported: no class is installed for this kind.
            MoqRefused: the installed class does not take a relay. The reason does not contain its URL.
        """
        type_ = (await self.resolve()).classes[kind]
        if kind != "moq":
            return self._build(type_, values or {}, session_id, body, **later)
        values = {**RELAY, **(values or {})}
        try:
            return self._build(type_, values, session_id, body, **later)
        except Exception as error:
            redact = Redaction()
            redact.hide(session_id, values["relay_url"])
            message = logged(redact(session_id, str(error)))
            reason = f"its session arguments did not build ({type(error).__name__}: {message})"
            raise MoqRefused(reason, session_id=session_id) from None

    async def build_runners(
        self, type_name: str, session_id: str, body: Any, values: Mapping[str, Any], **later: Any
    ) -> Arguments:
        """Build arguments of a class that only pipecat has. Raises NotSupported if this pipecat does not."""
        await self.resolve()
        module = sys.modules.get(RUNNER) or await asyncio.to_thread(self._import_runner)
        type_ = getattr(module, type_name, None)
        if type_ is None:
            raise NotSupported(f"The pipecat-ai that is installed here has no {type_name}.", session_id=session_id)
        return self._build(type_, values, session_id, body, **later)

    def _build(
        self, type_: type[Any] | None, values: Mapping[str, Any], session_id: str, body: Any, **later: Any
    ) -> Arguments:
        if type_ is None:
            raise NotSupported("The installed pipecat has no arguments for this transport.", session_id=session_id)
        defaults = {"body": body, "file_storage": self.file_storage, "flow_config": None}
        signals = {"handle_sigint": False, "handle_sigterm": False}
        fields = {**defaults, **signals, **later}
        fields["flow_config"] = fields["flow_config"] or self._default_flow
        arguments: Arguments = _build(type_, values, session_id=session_id, **fields)
        return arguments

    def _import_runner(self) -> Any:
        with self._guard(), contextlib.suppress(ImportError):
            return importlib.import_module(RUNNER)
        return None


def _build(type_: Any, values: Mapping[str, Any], *, session_id: str, **later: Any) -> Any:
    known = {**values, "session_id": session_id}
    needed = [
        f.name
        for f in dataclasses.fields(type_)
        if f.init
        and (f.name in values or (f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING))
    ]
    arguments = type_(**{name: known.get(name) for name in needed})
    for name, value in {**known, **later}.items():
        setattr(arguments, name, value)
    return arguments


def _imported(name: str) -> Any:
    """None for a module that is missing or does not import; a bot that needs it will say so itself."""
    if not installed.has(name.partition(".")[0]):
        return None
    try:
        return importlib.import_module(name)
    except Exception:
        return None


@cache
def _without_url_in_repr(type_: type[Any] | None) -> type[Any] | None:
    """Leave the relay's URL, which holds a token, out of the class's repr, as pipecatcloud's own class does."""
    if type_ is None or not dataclasses.is_dataclass(type_):
        return None
    if not any(f.name == "relay_url" and f.repr for f in dataclasses.fields(type_)):
        return type_

    def without_url(self: Any) -> str:
        shown = [f for f in dataclasses.fields(self) if f.repr and f.name != "relay_url"]
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in shown)})"

    namespace = {"__repr__": without_url, "__module__": type_.__module__, "__doc__": type_.__doc__}
    return type(type_.__name__, (type_,), namespace)


@dataclass
class RunnerArguments:
    handle_sigint: bool = field(default=False, init=False)
    handle_sigterm: bool = field(default=False, init=False)
    pipeline_idle_timeout_secs: float | None = field(default=300, init=False)
    body: Any = field(default_factory=dict, init=False)
    session_id: str | None = field(default=None, init=False)
    file_storage: Any = field(default=None, init=False)
    flow_config: str | None = field(default=None, init=False)


@dataclass
class DailyRunnerArguments(RunnerArguments):
    room_url: str
    token: str | None


@dataclass
class WebSocketRunnerArguments(RunnerArguments):
    websocket: Any
    transport_type: str | None = field(default=None, init=False)


@dataclass
class SmallWebRTCRunnerArguments(RunnerArguments):
    webrtc_connection: Any
