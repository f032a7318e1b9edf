"""Check that the installed pipecat-ai and pipecatcloud can be served. Messages are those of the replaced image."""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pipecat_base.bot import installed
from pipecat_base.bot.arguments import (
    CLASSES,
    CLOUD,
    RUNNER,
    ArgumentTypes,
    Kind,
    types_from_cloud,
    types_from_runner,
)
from pipecat_base.errors import PipecatUnusable

OLDEST = "0.0.78"
SUPPORTED = f"This image supports pipecat-ai {OLDEST} or newer."
MAX_ERROR_CHARACTERS = 300
# Without these nothing is served.
REQUIRED: tuple[Kind, ...] = ("daily", "plain", "websocket")


@dataclass(frozen=True)
class PipecatCheck:
    """The limits of a pipecat that can be served. With a ``webrtc_problem``, WebRTC and WhatsApp are off."""

    warnings: tuple[str, ...] = ()
    webrtc_problem: str | None = None


def require_release() -> bool:
    """Return True if pipecat-ai is installed, without an import. Raises PipecatUnusable if it is too old."""
    if not installed.has("pipecat"):
        return False
    if not installed.has(RUNNER):
        raise _too_old()
    return True


def raise_if_pipecat_is_broken(failure: BaseException) -> None:
    """Raise PipecatUnusable if the cause of ``failure`` passed through pipecat and pipecat itself does not import."""
    if failure.__cause__ is None or not installed.has("pipecat"):
        return
    passed = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failure.__cause__.__traceback__)}
    if any(name.partition(".")[0] == "pipecat" for name in passed):
        _import_runner()


def require_session_types(*, cloud: bool) -> PipecatCheck:
    """Import and build the arguments of sessions. Raises PipecatUnusable if no session could be run."""
    runner = _import_runner()
    uses_cloud = cloud and installed.has("pipecatcloud")
    types = types_from_cloud(_import_cloud(), runner) if uses_cloud else types_from_runner(runner)
    for kind in REQUIRED:
        _require(types, kind)
    webrtc_problem = why_no_webrtc(types) if types.classes["webrtc"] is not None else None
    return PipecatCheck(tuple(_warnings(types, runner, webrtc_problem)), webrtc_problem)


def moq_needs() -> str:
    return (
        "MoQ sessions need pipecat-ai 1.12.0 or newer with its moq extra, and pipecatcloud 1.3.0 or newer;"
        f" this image has {_pipecat()} and {_pipecatcloud()}"
    )


def why_no_moq(types: ArgumentTypes) -> str | None:
    type_ = types.classes["moq"]
    if type_ is None or not _has_field(type_, "relay_url"):
        return moq_needs()
    error = types.problem("moq")
    return None if error is None else f"{_packages(types)} cannot build {type_.__name__} ({_text_of(error)})"


def why_no_webrtc(types: ArgumentTypes) -> str | None:
    type_ = types.classes["webrtc"]
    if type_ is None:
        return f"{_packages(types)} has no SmallWebRTCSessionArguments"
    error = types.problem("webrtc")
    return None if error is None else f"{_packages(types)} cannot build the {type_.__name__} ({_text_of(error)})"


def _import_runner() -> Any:
    try:
        runner = importlib.import_module(RUNNER)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("pipecat.runner", RUNNER):
            raise _too_old() from error
        raise PipecatUnusable(
            f"{_pipecat()} failed to import ({_text_of(error)}):", "fix the agent image's dependencies."
        ) from error
    missing = sorted(name for name in (CLASSES[kind][0] for kind in REQUIRED) if not hasattr(runner, name))
    if missing:
        raise PipecatUnusable(
            f"{_pipecat()} has no {', '.join(missing)} in {RUNNER}, which this image builds session arguments on:",
            f"pin a pipecat-ai release that provides {'it' if len(missing) == 1 else 'them'}.",
        )
    return runner


def _import_cloud() -> Any:
    try:
        return importlib.import_module(CLOUD)
    except Exception as error:
        raise PipecatUnusable(
            f"{_pipecatcloud()} cannot load its session types with {_pipecat()} ({_text_of(error)}).", SUPPORTED
        ) from error


def _require(types: ArgumentTypes, kind: Kind) -> None:
    type_ = types.classes[kind]
    if type_ is None:
        raise PipecatUnusable(
            f"{_pipecatcloud()} has no {CLASSES[kind][1]}, which this image hands bot():",
            "pin a pipecatcloud release that has it, or leave pipecatcloud to the image.",
        )
    error = types.problem(kind)
    if error is not None:
        raise PipecatUnusable(
            f"{_packages(types)} cannot build the {type_.__name__} this image hands bot() ({_text_of(error)}).",
            SUPPORTED,
        )


def _warnings(types: ArgumentTypes, runner: Any, webrtc_problem: str | None) -> Iterator[str]:
    if webrtc_problem is not None:
        yield f"{webrtc_problem}: the image serves without it, and the transports that need it are off."
    reason = why_no_moq(types) if installed.has("moq") else None
    if reason is not None:
        yield f"pipecat-ai's moq extra is installed, but {reason}: the image reports MoQ sessions unavailable."
    deprecated = "is deprecated in this image, as its session arguments have no body of their own: upgrade to"
    if not _has_field(runner.RunnerArguments, "body"):
        yield f"{_pipecat()} {deprecated} pipecat-ai 0.0.91 or newer."
    elif types.from_cloud and not _has_field(types.classes["websocket"], "body"):
        yield f"{_pipecatcloud()} {deprecated} pipecatcloud 0.2.1 or newer."


def _has_field(type_: Any, name: str) -> bool:
    return not is_dataclass(type_) or any(field.name == name for field in fields(type_))


def _too_old() -> PipecatUnusable:
    return PipecatUnusable(
        f"{_pipecat()} is too old for this image, which needs pipecat-ai {OLDEST} or newer:",
        "upgrade pipecat-ai in the agent image and deploy again.",
    )


def _packages(types: ArgumentTypes) -> str:
    return f"{_pipecatcloud()} with {_pipecat()}" if types.from_cloud else _pipecat()


def _pipecat() -> str:
    return f"pipecat-ai {installed.version('pipecat-ai') or '(none)'}"


def _pipecatcloud() -> str:
    return f"pipecatcloud {installed.version('pipecatcloud') or '(none)'}"


def _text_of(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_ERROR_CHARACTERS]
