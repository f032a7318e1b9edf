"""The classes of what ``bot(args)`` receives, as far as this environment has them.

Bots test their arguments with ``isinstance`` against ``pipecatcloud.agent.*SessionArguments`` or
``pipecat.runner.types.*RunnerArguments``; the former subclass the latter. Both changed over the years: a field that
one version takes in its constructor raises TypeError in another. So an object is built from the fields that say where
its caller is, and everything else is set as an attribute afterwards: what a class has is decided by what builds, never
by a version. Where neither package is installed, the dataclasses at the end of this module stand in, with the same
names.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from pipecat_base.bot import installed

CLOUD = "pipecatcloud.agent"
RUNNER = "pipecat.runner.types"

RELAY = {"relay_url": "https://relay", "namespace": "n", "participant_id": "response", "peer_id": "request"}
"""Fields of MoQ arguments. The bot speaks as ``participant_id`` and hears ``peer_id``."""
SAMPLES: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "daily": {"room_url": "https://room", "token": "t"},
    "websocket": {"websocket": None},
    "webrtc": {"webrtc_connection": None},
    "moq": RELAY,
}
"""Values with which each class must build."""


@dataclass(frozen=True)
class ArgumentTypes:
    """The classes to instantiate, by transport; None for one that is not there.

    Attributes:
        from_cloud: Whether they are pipecatcloud's.
    """

    plain: type[Any] | None
    daily: type[Any] | None
    websocket: type[Any] | None
    webrtc: type[Any] | None
    moq: type[Any] | None
    from_cloud: bool = False

    def problem(self, transport: str) -> Exception | None:
        """Why this transport's arguments cannot be built, or None. The class must be there."""
        type_ = getattr(self, transport)
        try:
            build(type_, SAMPLES[transport], session_id="s", body={})
        except Exception as error:
            return error
        return None


def from_cloud(cloud: Any, runner: Any) -> ArgumentTypes:
    """pipecatcloud's. Those that it does not have are pipecat's, whose module may be None."""
    fallback = from_runner(runner)
    return ArgumentTypes(
        plain=getattr(cloud, "PipecatSessionArguments", None),
        daily=getattr(cloud, "DailySessionArguments", None),
        websocket=getattr(cloud, "WebSocketSessionArguments", None),
        webrtc=getattr(cloud, "SmallWebRTCSessionArguments", None) or fallback.webrtc,
        moq=_without_url_in_repr(getattr(cloud, "MOQSessionArguments", None)) or fallback.moq,
        from_cloud=True,
    )


def from_runner(runner: Any) -> ArgumentTypes:
    """pipecat's."""
    return ArgumentTypes(
        plain=getattr(runner, "RunnerArguments", None),
        daily=getattr(runner, "DailyRunnerArguments", None),
        websocket=getattr(runner, "WebSocketRunnerArguments", None),
        webrtc=getattr(runner, "SmallWebRTCRunnerArguments", None),
        moq=_without_url_in_repr(getattr(runner, "MOQRunnerArguments", None)),
    )


def load(*, cloud: bool) -> ArgumentTypes:
    """What is installed; imports it. ``cloud``: pipecatcloud's, where that is."""
    runner = _imported(RUNNER)
    module = _imported(CLOUD) if cloud else None
    if module is not None:
        return from_cloud(module, runner)
    return OWN_TYPES if runner is None else from_runner(runner)


def build(type_: type[Any], values: Mapping[str, Any], *, session_id: str, body: Any, **later: Any) -> Any:
    """An object of this class.

    Args:
        values: Where the caller is, given to the constructor by name.
        later: Set afterwards.

    Raises:
        Exception: the class does not take them.
    """
    known = {**values, "session_id": session_id}
    needed = [
        f.name
        for f in dataclasses.fields(type_)
        if f.init
        and (f.name in values or (f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING))
    ]
    arguments = type_(**{name: known.get(name) for name in needed})
    for name, value in {**known, "body": body, **later}.items():
        setattr(arguments, name, value)
    return arguments


def _imported(name: str) -> Any:
    """None for a module that is not there or does not import; a bot that needs it will say so itself."""
    if not installed.has(name.partition(".")[0]):
        return None
    try:
        return importlib.import_module(name)
    except Exception:
        return None


@cache
def _without_url_in_repr(type_: type[Any] | None) -> type[Any] | None:
    """The class, with the relay's URL, which holds a token, left out of its repr. pipecatcloud's does that itself."""
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
    """Stands in for ``pipecat.runner.types.RunnerArguments`` where pipecat is not installed."""

    handle_sigint: bool = field(default=False, init=False)
    handle_sigterm: bool = field(default=False, init=False)
    pipeline_idle_timeout_secs: float | None = field(default=300, init=False)
    body: Any = field(default_factory=dict, init=False)
    session_id: str | None = field(default=None, init=False)
    file_storage: Any = field(default=None, init=False)
    flow_config: str | None = field(default=None, init=False)


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
    moq=None,
)
