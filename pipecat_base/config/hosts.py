"""Host names of this machine."""

from __future__ import annotations

import ipaddress
import re

# RFC 9110 section 7.2, without user names, percent-encoding and zones, which browsers do not send.
HOST = re.compile(r"(\[(?P<address>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9.-]+))(:[0-9]{0,5})?")
HOST_HEADERS = ("host", "x-forwarded-host")


def is_local(host: str) -> bool:
    """True if only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def name_is_local(host: str) -> bool:
    found = HOST.fullmatch(host)
    return found is not None and is_local((found["address"] or found["name"]).lower())


def page_is_local(origin: str) -> bool:
    scheme, _, host = origin.partition("://")
    return scheme.lower() in ("http", "https") and name_is_local(host)
