"""Who uses this machine alone, and who only seems to: names of others that lead here."""

from __future__ import annotations

from urllib.parse import urlsplit

from pipecat_base.settings import Settings, is_local

HOST_HEADERS = ("host", "x-forwarded-host")
"""What a visitor takes us for: behind a tunnel it is the tunnel's name."""


def serves_this_machine_alone(settings: Settings) -> bool:
    """Whether nobody else may use the gateway: without keys it refuses names of other machines."""
    return not (settings.has_keys or settings.insecure)


def name_is_local(host: str) -> bool:
    """Whether a ``Host`` header's value names this machine."""
    try:
        return is_local(urlsplit(f"//{host}").hostname or "")
    except ValueError:
        return False
