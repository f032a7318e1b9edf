"""Can this pipecat-ai, and this pipecatcloud, be served? What the launcher builds for a bot must build.

A bot may go without either. One that does not is not started to fail in its first call: what is too old or broken ends
the start, in words that the replaced image has, too.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pipecat_base.bot import argument_types, installed
from pipecat_base.bot.argument_types import CLOUD, RUNNER, ArgumentTypes
from pipecat_base.errors import PipecatUnusable

OLDEST = "0.0.78"
SUPPORTED = f"This image supports pipecat-ai {OLDEST} or newer."
LONGEST_ERROR = 300
"""Characters of somebody else's error."""

REQUIRED = {"daily": "Daily", "plain": "", "websocket": "WebSocket"}
"""The transports without which nothing is served, and how their classes' names begin."""


def require_release() -> bool:
    """Whether pipecat-ai is installed; imports nothing.

    Raises:
        PipecatUnusable: it is older than what the launcher builds arguments with.
    """
    if not installed.has("pipecat"):
        return False
    if not installed.has(RUNNER):
        raise _too_old()
    return True


def require_import(failure: BaseException) -> None:
    """Whether pipecat itself is why a bot's import failed.

    Args:
        failure: With the error of the import as its cause.

    Raises:
        PipecatUnusable: pipecat does not import either.
    """
    if failure.__cause__ is None or not installed.has("pipecat"):
        return
    passed = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(failure.__cause__.__traceback__)}
    if any(name.partition(".")[0] == "pipecat" for name in passed):
        _runner()


@dataclass(frozen=True)
class Verdict:
    """What is served, with less than all.

    Attributes:
        warnings: For the log.
        webrtc_problem: Why WebRTC and WhatsApp are off, or None.
    """

    warnings: tuple[str, ...] = ()
    webrtc_problem: str | None = None


def require_session_types(*, cloud: bool) -> Verdict:
    """Import and build what sessions get.

    Args:
        cloud: Whether they are pipecatcloud's, where that is installed.

    Raises:
        PipecatUnusable: a session could not be run with what is installed.
    """
    runner = _runner()
    uses_cloud = cloud and installed.has("pipecatcloud")
    types = argument_types.from_cloud(_cloud(), runner) if uses_cloud else argument_types.from_runner(runner)
    for transport in REQUIRED:
        _require(types, transport)
    webrtc_problem = why_no_webrtc(types) if types.webrtc is not None else None
    return Verdict(tuple(_warnings(types, runner, webrtc_problem)), webrtc_problem)


def moq_needs() -> str:
    """What MoQ sessions need, and what is here."""
    return (
        "MoQ sessions need pipecat-ai 1.12.0 or newer with its moq extra, and pipecatcloud 1.3.0 or newer;"
        f" this image has pipecat-ai {version('pipecat-ai')} and pipecatcloud {version('pipecatcloud')}"
    )


def why_no_moq(types: ArgumentTypes) -> str | None:
    """Why MoQ sessions cannot be run with these, or None."""
    if types.moq is None or not any(f.name == "relay_url" for f in fields(types.moq)):
        return moq_needs()
    error = types.problem("moq")
    return None if error is None else f"{_packages(types)} cannot build {types.moq.__name__} ({_said(error)})"


def why_no_webrtc(types: ArgumentTypes) -> str | None:
    """Why SmallWebRTC sessions cannot be run with these, or None."""
    if types.webrtc is None:
        return f"{_packages(types)} has no SmallWebRTCSessionArguments"
    error = types.problem("webrtc")
    return None if error is None else f"{_packages(types)} cannot build the {types.webrtc.__name__} ({_said(error)})"


def version(distribution: str) -> str:
    """Of an installed package, for people."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "(none)"


def _too_old() -> PipecatUnusable:
    return PipecatUnusable(
        f"pipecat-ai {version('pipecat-ai')} is too old for this image, which needs pipecat-ai {OLDEST} or newer:",
        "upgrade pipecat-ai in the agent image and deploy again.",
    )


def _runner() -> Any:
    name = f"pipecat-ai {version('pipecat-ai')}"
    try:
        runner = importlib.import_module(RUNNER)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name in ("pipecat.runner", RUNNER):
            raise _too_old() from error
        raise PipecatUnusable(
            f"{name} failed to import ({_said(error)}):", "fix the agent image's dependencies."
        ) from error
    wanted = [f"{beginning}RunnerArguments" for beginning in REQUIRED.values()]
    missing = [type_ for type_ in sorted(wanted) if not hasattr(runner, type_)]
    if missing:
        raise PipecatUnusable(
            f"{name} has no {', '.join(missing)} in {RUNNER}, which this image builds session arguments on:",
            f"pin a pipecat-ai release that provides {'it' if len(missing) == 1 else 'them'}.",
        )
    return runner


def _cloud() -> Any:
    try:
        return importlib.import_module(CLOUD)
    except Exception as error:
        raise PipecatUnusable(
            f"pipecatcloud {version('pipecatcloud')} cannot load its session types with pipecat-ai"
            f" {version('pipecat-ai')} ({_said(error)}).",
            SUPPORTED,
        ) from error


def _require(types: ArgumentTypes, transport: str) -> None:
    beginning = REQUIRED[transport] or "Pipecat"
    type_ = getattr(types, transport)
    if type_ is None:
        raise PipecatUnusable(
            f"pipecatcloud {version('pipecatcloud')} has no {beginning}SessionArguments, which this image hands bot():",
            "pin a pipecatcloud release that has it, or leave pipecatcloud to the image.",
        )
    error = types.problem(transport)
    if error is not None:
        raise PipecatUnusable(
            f"{_packages(types)} cannot build the {type_.__name__} this image hands bot() ({_said(error)}).", SUPPORTED
        )


def _warnings(types: ArgumentTypes, runner: Any, webrtc_problem: str | None) -> Iterator[str]:
    if webrtc_problem is not None:
        yield f"{webrtc_problem}: the image serves without it, and the transports that need it are off."
    if installed.has("moq"):
        reason = why_no_moq(types)
        if reason is not None:
            yield f"pipecat-ai's moq extra is installed, but {reason}: the image reports MoQ sessions unavailable."
    deprecated = "is deprecated in this image, as its session arguments have no body of their own: upgrade to"
    if _has_no_body(runner.RunnerArguments):
        yield f"pipecat-ai {version('pipecat-ai')} {deprecated} pipecat-ai 0.0.91 or newer."
    elif types.from_cloud and _has_no_body(types.websocket):
        yield f"pipecatcloud {version('pipecatcloud')} {deprecated} pipecatcloud 0.2.1 or newer."


def _has_no_body(type_: Any) -> bool:
    return is_dataclass(type_) and not any(field.name == "body" for field in fields(type_))


def _packages(types: ArgumentTypes) -> str:
    pipecat = f"pipecat-ai {version('pipecat-ai')}"
    return f"pipecatcloud {version('pipecatcloud')} with {pipecat}" if types.from_cloud else pipecat


def _said(error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text[:LONGEST_ERROR]
