"""Parsers of environment variables. Each raises ValueError with the words that follow the value: ``is not a port``."""

from __future__ import annotations

import base64
import ipaddress
import math
import os
import re
from collections.abc import Callable
from typing import TypeVar

from pipecat_base.config.container_env import unquoted

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
ANYWHERE = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


def text(value: str) -> str:
    # From a file it often comes with a line break, which no header, path, address or signature could hold.
    return value.strip()


secret = text


def boolean(value: str) -> bool:
    lowered = value.strip().lower()
    if lowered in ("1", "true", "yes", "on"):
        return True
    if lowered in ("0", "false", "no", "off"):
        return False
    raise ValueError("is not true or false")


def unless_false(value: str) -> bool:
    return value.strip().lower() != "false"


def webhook_secret(value: str) -> bytes:
    # https://www.standardwebhooks.com: the key in base64, after this prefix
    try:
        key = base64.b64decode(value.strip().removeprefix("whsec_"), validate=True)
    except ValueError:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("is not a webhook secret (whsec_ and base64 of 24 to 64 bytes)")
    return key


def _number(value: str, minimum: float, words: str) -> float:
    try:
        number = float(value)
    except ValueError:
        raise ValueError(words) from None
    if not math.isfinite(number) or number < minimum:
        raise ValueError(words)
    return number


def seconds(value: str) -> float:
    return _number(value, 0, "is not a number of seconds (0 or more)")


def positive_seconds(value: str) -> float:
    words = "is not a number of seconds (more than 0)"
    number = _number(value, 0, words)
    if number == 0:
        raise ValueError(words)
    return number


def integer(minimum: int, maximum: int | None, words: str) -> Callable[[str], int]:
    def parse(value: str) -> int:
        try:
            # int() would also take "1_000" and other alphabets' digits.
            if not value.strip().lstrip("+-").isascii() or "_" in value:
                raise ValueError
            number = int(value)
        except ValueError:
            raise ValueError(words) from None
        if number < minimum or (maximum is not None and number > maximum):
            raise ValueError(words)
        return number

    return parse


def choice(choices: tuple[str, ...], fold: Callable[[str], str]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        folded = fold(value.strip())
        if folded not in choices:
            raise ValueError(f"is not one of {', '.join(choices)}")
        return folded

    return parse


def comma_list(value: str) -> tuple[str, ...]:
    # A file may have one on each line, and ``.env`` quotation marks around each.
    parts = (unquoted(part.strip()) for part in re.split(r"[,\r\n]", value))
    return tuple(part.strip() for part in parts if part.strip())


def callers(value: str) -> tuple[Network, ...]:
    if value.strip() == "*":
        return ANYWHERE
    try:
        return tuple(ipaddress.ip_network(part, strict=False) for part in comma_list(value))
    except ValueError:
        raise ValueError("is not * or a comma list of addresses and networks (10.0.0.0/8)") from None


def origins(value: str) -> tuple[str, ...]:
    origins = comma_list(value)
    for origin in origins:
        scheme, separator, host = origin.partition("://")
        if not (scheme and separator and host) or "/" in host:
            raise ValueError("is not a comma list of origins (https://app.example.com)")
    return origins


def networks(value: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(part) for part in comma_list(value))
    except ValueError:
        raise ValueError("is not a comma list of networks (10.0.0.0/8,fd00::/8)") from None


def route_patterns(value: str) -> tuple[str, ...]:
    patterns = comma_list(value)
    if not all(pattern.startswith("/") for pattern in patterns):
        raise ValueError("is not a comma list of paths (/health,/public/*)")
    return patterns


def url(value: str) -> str:
    scheme, _, rest = value.strip().partition("://")
    if scheme.lower() not in ("http", "https") or not rest:
        raise ValueError("is not an HTTP address (http://host:port/path)")
    return value.strip()


def path_list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(os.pathsep) if part.strip())


def port_range(value: str) -> tuple[int, int]:
    """The first and the last port."""
    first, dash, last = value.strip().partition("-")
    words = "is not a range of ports (40000-40100)"
    try:
        found = port(first), port(last if dash else first)
    except ValueError:
        raise ValueError(words) from None
    if found[0] > found[1]:
        raise ValueError(words)
    return found


port = integer(1, 65535, "is not a port (1–65535)")
count = integer(1, None, "is not a whole number (1 or more)")
size = integer(1, None, "is not a number of bytes (1 or more)")
http_status = integer(200, 599, "is not an HTTP status (200–599)")


class Ignored(ValueError):
    """A wrong value that counts as unset and is worth a warning, as in the replaced image."""


def forgiving(parse: Callable[[str], T]) -> Callable[[str], T]:
    """Make a wrong value count as unset."""

    def forgiving(value: str) -> T:
        try:
            return parse(value)
        except ValueError as error:
            raise Ignored(*error.args) from None

    return forgiving
