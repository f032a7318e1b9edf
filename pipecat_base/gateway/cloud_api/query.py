"""Query parameters: each function returns a value, or raises Malformed."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime

from pipecat_base.errors import Malformed

MAX_DIGITS = 9
MAX_UNIX_TIME = 253_402_300_799  # the end of the year 9999


def whole_number(name: str, value: str, *, minimum: int = 0) -> int:
    if not (value.isascii() and value.isdecimal()) or len(value) > MAX_DIGITS or int(value) < minimum:
        raise Malformed(f"{name} is not a whole number ({minimum} to 999,999,999).", field=name)
    return int(value)


def choice(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise Malformed(f"{name} is not one of {', '.join(known)}.", field=name)
    return value


def time(name: str, value: str | None) -> datetime | None:
    if value is None:
        return None
    if not (value.isascii() and value.isdecimal()) or len(value) > 12 or int(value) > MAX_UNIX_TIME:
        raise Malformed(f"{name} is not a Unix time in seconds, such as 1760000000.", field=name)
    return datetime.fromtimestamp(int(value), UTC)
