"""Phone calls without a provider's account: what pipecat wants to hang up with, and what ``dev`` gives it instead.

pipecat's serializers of Twilio, Telnyx and Plivo hang up by the provider's REST API, and are not made without
credentials. In ``dev`` missing ones are stand-ins; with those nothing is sent to the provider.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipecat_base.config import environment
from pipecat_base.logs.logger import logger

STAND_IN = "stand-in-of-pipecat-base-dev-"
"""What each begins with. The rest is random: nobody signs requests with what is public."""


@dataclass(frozen=True)
class Wanted:
    """What pipecat reads for a provider (``pipecat.runner.utils``), and which class uses it.

    Attributes:
        instead: Variables that pipecat takes in place of the last of ``variables``, where one of them is set.
    """

    provider: str
    serializer: str
    variables: tuple[str, ...]
    instead: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        """Where the class is."""
        return f"pipecat.serializers.{self.provider.lower()}"

    def missing(self, variables: Mapping[str, str]) -> list[str]:
        """Those that are not set, or are empty."""
        has_other = any(variables.get(name, "").strip() for name in self.instead)
        wanted = self.variables[:-1] if has_other else self.variables
        return [name for name in wanted if not variables.get(name, "").strip()]


WANTED = (
    Wanted(
        "Twilio",
        "TwilioFrameSerializer",
        ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"),
        ("TWILIO_API_KEY", "TWILIO_API_SECRET"),
    ),
    Wanted("Telnyx", "TelnyxFrameSerializer", ("TELNYX_API_KEY",)),
    Wanted("Plivo", "PlivoFrameSerializer", ("PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN")),
)
"""Exotel's serializer hangs up nothing."""


def provide() -> None:
    """Set stand-ins for what is missing. For the bot alone: the gateway checks signatures with the same variables."""
    variables = environment.read()
    for wanted in WANTED:
        environment.add({name: f"{STAND_IN}{secrets.token_hex(16)}" for name in wanted.missing(variables)})


def keep_in_house() -> None:
    """Have pipecat send no hang-up that has a stand-in's credentials. It imports pipecat."""
    variables = environment.read()
    for wanted in WANTED:
        names = [name for name in wanted.variables if _stands_in(variables.get(name))]
        with contextlib.suppress(ImportError, AttributeError):  # an extra that is missing, a pipecat of another age
            if names:
                serializer: Any = getattr(importlib.import_module(wanted.module), wanted.serializer)
                serializer._hang_up_call = _unless_stand_in(serializer._hang_up_call, wanted.provider, names)


def _unless_stand_in(
    hang_up: Callable[[Any], Awaitable[None]], provider: str, names: list[str]
) -> Callable[[Any], Awaitable[None]]:
    @functools.wraps(hang_up)
    async def hang_up_if_real(self: Any) -> None:
        if any(map(_stands_in, vars(self).values())):
            logger.info(f"{provider} is not asked to hang up: {_listed(names)} not set, dev stands in")
        else:
            await hang_up(self)

    return hang_up_if_real


def _stands_in(value: object) -> bool:
    return isinstance(value, str) and value.startswith(STAND_IN)


def advice(error: BaseException) -> str | None:
    """What to do about a bot that failed for want of a provider's credentials; None for any other failure."""
    if type(error) is not ValueError or "auto_hang_up" not in str(error):
        return None
    variables = environment.read()
    trace = error.__traceback__
    modules = set()
    while trace is not None:
        modules.add(trace.tb_frame.f_globals.get("__name__", ""))
        trace = trace.tb_next
    for wanted in WANTED:
        missing = wanted.missing(variables)
        if wanted.module in modules and missing:
            return (
                f"pipecat hangs up {wanted.provider}'s calls by itself and wants {' and '.join(missing)} for it; "
                "to try the bot without, use pipecat-base dev"
            )
    return None


def _listed(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
