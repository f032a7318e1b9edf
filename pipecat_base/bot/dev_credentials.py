"""Stand-in credentials, so that ``dev`` takes phone calls without a provider's account.

pipecat's serializers hang up through the provider's REST API, and refuse to be made without credentials. With stand-ins
nothing is sent to the provider.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import secrets
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipecat_base.config import environment
from pipecat_base.logs.logger import logger

# The prefix of each. The rest is random, as the gateway must accept no signature made with a public key.
STAND_IN = "stand-in-of-pipecat-base-dev-"


@dataclass(frozen=True)
class ProviderCredentials:
    """Variables that pipecat reads for a provider; any of ``instead`` may replace the last of ``variables``."""

    provider: str
    serializer: str
    variables: tuple[str, ...]
    instead: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return f"pipecat.serializers.{self.provider.lower()}"

    def missing(self, variables: Mapping[str, str]) -> list[str]:
        has_other = any(variables.get(name, "").strip() for name in self.instead)
        needed = self.variables[:-1] if has_other else self.variables
        return [name for name in needed if not variables.get(name, "").strip()]


# Exotel's serializer hangs up no call.
PROVIDERS = (
    ProviderCredentials(
        "Twilio",
        "TwilioFrameSerializer",
        ("TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN"),
        ("TWILIO_API_KEY", "TWILIO_API_SECRET"),
    ),
    ProviderCredentials("Telnyx", "TelnyxFrameSerializer", ("TELNYX_API_KEY",)),
    ProviderCredentials("Plivo", "PlivoFrameSerializer", ("PLIVO_AUTH_ID", "PLIVO_AUTH_TOKEN")),
)


def provide() -> None:
    """Set stand-ins for missing variables. Only for the bot: the gateway checks signatures with the same variables."""
    variables = environment.read()
    for provider in PROVIDERS:
        environment.add({name: f"{STAND_IN}{secrets.token_hex(16)}" for name in provider.missing(variables)})


def suppress_hang_ups() -> None:
    """Stop pipecat from sending hang-ups with stand-ins. Imports pipecat."""
    variables = environment.read()
    for provider in PROVIDERS:
        names = [name for name in provider.variables if _stands_in(variables.get(name))]
        with contextlib.suppress(ImportError, AttributeError):  # a missing extra, another release of pipecat
            if names:
                serializer: Any = getattr(importlib.import_module(provider.module), provider.serializer)
                serializer._hang_up_call = _unless_stand_in(serializer._hang_up_call, provider.provider, names)


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
    if type(error) is not ValueError or "auto_hang_up" not in str(error):
        return None
    variables = environment.read()
    modules = {frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)}
    for provider in PROVIDERS:
        missing = provider.missing(variables)
        if provider.module in modules and missing:
            return (
                f"pipecat hangs up {provider.provider}'s calls by itself and wants {' and '.join(missing)} for it; "
                "to try the bot without, use pipecat-base dev"
            )
    return None


def _listed(names: list[str]) -> str:
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'}"
