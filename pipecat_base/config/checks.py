"""Checks of settings that look at more than one value."""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipecat_base.config.container_env import is_service_link
from pipecat_base.config.hosts import is_local
from pipecat_base.config.suggestions import nearest

if TYPE_CHECKING:
    from pipecat_base.config.settings import Settings

MIN_SECRET_LENGTH = 16


def misspelt(environment: Mapping[str, str], known: Collection[str]) -> Iterator[str]:
    """Lines about variables that were probably meant for the launcher, each beginning with its name."""
    unset = [name for name in known if not environment.get(name, "").strip()]
    others = [
        name for name in sorted(set(environment).difference(known)) if not is_service_link(name, environment[name])
    ]
    near = nearest(others, unset)
    for name in others:
        bare = name.removeprefix("PIPECAT_")
        meant = bare if bare != name and bare in unset else near.get(name)
        if meant is not None:
            yield f"{name}: pipecat-base does not read this variable; is {meant} meant?"


def short_secrets(chosen: Mapping[str, Any]) -> Iterator[str]:
    """Warnings about secrets that the operator has chosen, by the names of their variables."""
    for name, value in chosen.items():
        each = value if isinstance(value, tuple) else (value,)
        if any(len(secret) < MIN_SECRET_LENGTH for secret in each):
            yield (
                f"{name}: fewer than {MIN_SECRET_LENGTH} characters can be guessed; `openssl rand -hex 24` makes a "
                "good one"
            )


def blank_secrets(environment: Mapping[str, str], chosen: Collection[str]) -> Iterator[str]:
    """Errors about secrets that are set, and protect nothing because they are blank."""
    for name in chosen:
        value = environment.get(name, "")
        # An empty variable counts as unset, but a pod without its token would be open to all.
        is_set = bool(value) or (name == "PIPECAT_POD_TOKEN" and name in environment)
        if is_set and not value.replace(",", "").strip():
            yield f"{name}: the value is blank, and would protect nothing; set a secret, or take the variable away"


def contradictions(settings: Settings) -> Iterator[str]:
    """Errors about settings that are right one by one, and wrong together."""
    gateway = settings.gateway
    if gateway.has_keys and not gateway.is_enabled:
        name = "PIPECAT_PUBLIC_API_KEYS" if gateway.public_api_keys else "PIPECAT_PRIVATE_API_KEYS"
        yield (
            f"{name}: keys protect nothing without the gateway; set PIPECAT_GATEWAY=1, or PIPECAT_POD_TOKEN for a pod"
        )
    if settings.webrtc.esp32_enabled and settings.webrtc.esp32_host is None:
        yield "ESP32_HOST: not set, and ESP32_ENABLED needs the address that ESP32 peers reach"
    if gateway.is_enabled:
        yield from _wrong_for_a_gateway(settings)


def _wrong_for_a_gateway(settings: Settings) -> Iterator[str]:
    # A pod does not mind: it passes some of these on to the bot.
    gateway, providers = settings.gateway, settings.providers
    if gateway.serves_this_machine_only and not is_local(settings.server.host):
        yield (
            f"PIPECAT_PUBLIC_API_KEYS: not set, and a gateway on {settings.server.host} can be reached from elsewhere; "
            "set keys, listen on 127.0.0.1 (PIPECAT_HOST), or say --insecure (PIPECAT_INSECURE)"
        )
    if gateway.serves_this_machine_only and gateway.public_url is not None:
        yield (
            "PIPECAT_PUBLIC_API_KEYS: not set, and PIPECAT_PUBLIC_URL says that others reach this gateway;"
            " set keys or say --insecure (PIPECAT_INSECURE)"
        )
    if providers.telnyx_public_key is not None and _decoded_length(providers.telnyx_public_key) != 32:
        yield "TELNYX_PUBLIC_KEY: the value is not a public key (base64 of 32 bytes)"
    if providers.dialin_secret is not None and not _decoded_length(providers.dialin_secret):
        yield "PINLESS_HMAC_SECRET: the value is not base64"
    if not providers.daily_api_url.startswith(("http://", "https://")):
        yield f"DAILY_API_URL: {json.dumps(providers.daily_api_url)} is not an HTTP address (http://host:port/path)"
    for name, url in (
        ("DAILY_ROOM_URL", providers.daily_room_url),
        ("DAILY_SAMPLE_ROOM_URL", providers.daily_sample_room_url),
    ):
        if url is not None and not url.startswith(("http://", "https://")):
            yield f"{name}: {json.dumps(url)} is not a room's address (https://your-domain.daily.co/room)"


def _decoded_length(value: str) -> int:
    """Bytes in base64; 0 when the value is not base64."""
    try:
        return len(base64.b64decode(value, validate=True))
    except ValueError:
        return 0
