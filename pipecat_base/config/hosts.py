"""Who uses this machine alone, and who only seems to: names of others that lead here."""

from __future__ import annotations

import ipaddress
import re

HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(:[0-9]{0,5})?")
"""RFC 9110 section 7.2, without what no browser sends: user names, percent-encoding, zones."""
HOST_HEADERS = ("host", "x-forwarded-host")
"""What a visitor takes us for: behind a tunnel it is the tunnel's name."""


def is_local(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_is_local(host: str) -> bool:
    """Whether a ``Host`` header's value names this machine."""
    found = HOST.fullmatch(host)
    return found is not None and is_local((found["address"] or found["name"]).lower())


def page_is_local(origin: str) -> bool:
    """Whether an ``Origin`` header's value names a page of this machine's."""
    scheme, _, host = origin.partition("://")
    return scheme.lower() in ("http", "https") and name_is_local(host)
