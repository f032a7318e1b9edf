"""Decoding of messages from workers: bounded in size, of the right types and kinds."""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Mapping
from typing import Any

MAX_SECONDS = 1e15


def decode_untrusted(content: bytes, kinds: Mapping[str, type[Any]]) -> Any:
    """Decode a message of one of the kinds; the text of a ValueError is for the log and quotes nothing of it."""
    name = content[2:66].partition(b'"')[0].decode(errors="replace")
    kind: Any = kinds.get(name)
    if kind is None or not content.startswith(b'["'):
        raise ValueError("something that is no message")
    if len(content) > kind.max_bytes:
        limit = f"of more than {kind.max_bytes} bytes" if kind.max_bytes else "that only the launcher sends"
        raise ValueError(f"a message {limit} ({name})")
    try:
        _, fields = json.loads(content)
        message = kind(**fields)
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"a message of another shape ({name})") from None
    for field, hint in _types(kind).items():
        if not _fits(getattr(message, field), hint):
            raise ValueError(f"a message with a field of the wrong type ({name}.{field})")
    return message


@functools.cache
def _types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {name: hint for name, hint in hints.items() if typing.get_origin(hint) is not typing.ClassVar}


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, argument) for argument in arguments)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, arguments[0]) for item in value)
    if origin is tuple:  # a list, as JSON has it
        return isinstance(value, list) and len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is dict:
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint is float:
        return type(value) in (int, float) and abs(value) <= MAX_SECONDS  # not of NaN
    return type(value) is hint
