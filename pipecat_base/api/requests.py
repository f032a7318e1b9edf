"""Parsing of requests: session ids, limits and bodies."""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import math
import uuid
from typing import Any

from starlette.requests import HTTPConnection, Request

from pipecat_base.errors import Malformed, TooLarge
from pipecat_base.logs.escaping import logged
from pipecat_base.logs.logger import logger
from pipecat_base.server import client_address, large_json
from pipecat_base.server.paths import SESSION_ID, SESSION_ID_LENGTH
from pipecat_base.sessions.transports import Caller

# Large JSON blocks the event loop while its objects are made or freed. A comma weighs 1; a key or a text has two
# quotation marks, an array or an object one opening bracket.
MAX_WEIGHT = 1_000_000
QUOTE_WEIGHT, CONTAINER_WEIGHT = 5, 10
PLATFORM_MAX_BODY_BYTES = 1024 * 1024  # docs.pipecat.ai: bodies up to this size are never refused for their weight
MAX_SECONDS = "x-pcc-max-session-seconds"
SESSION_ID_KEY = "pipecat_base.session_id"
"""In a scope: the id that the launcher has given to the session of a request without one."""


def session_id(connection: HTTPConnection) -> str:
    """The platform's id for this session, or a new one."""
    value = connection.headers.get(SESSION_ID, "").strip()
    if not value:
        return str(connection.scope.get(SESSION_ID_KEY) or uuid.uuid4())
    if len(value) > SESSION_ID_LENGTH or not (value.isascii() and value.isprintable()):
        raise Malformed(
            f"Not a session id of at most {SESSION_ID_LENGTH} printable ASCII characters.", field=SESSION_ID
        )
    return value


def max_seconds(connection: HTTPConnection, session_id: str, *, warns: bool = True) -> float | None:
    """The platform's limit for this session. An invalid value is only logged: it is not the caller's fault."""
    value = connection.headers.get(MAX_SECONDS)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds > 0:
        return seconds
    if warns:
        _warn(session_id, f"Ignored {MAX_SECONDS}: '{logged(value)}' is not a number of seconds (more than 0)")
    return None


def caller(connection: HTTPConnection) -> Caller:
    """The sender, for logs, reports and traces. Only the use of loopback candidates depends on it."""
    route = client_address.route(connection)
    peer = " through ".join(map(str, reversed(route))) or None
    return Caller(peer, connection.headers.get("traceparent"))


async def json_body(request: Request, limit: int) -> Any:
    return await parse(await raw_body(request, limit))


async def raw_body(request: Request, limit: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes (MAX_BODY_BYTES).", field="body")
        chunks.append(chunk)
    return b"".join(chunks)


async def query_body(connection: HTTPConnection, session_id: str) -> Any:
    """The body from ``?body=``, or ``{}``. An invalid one is only logged: a phone call must not fail for it."""
    try:
        return await parse(decode_body(connection.query_params.get("body", "")))
    except (Malformed, TooLarge) as error:
        _warn(session_id, f"Ignored ?body=: {error.message}")
        return {}


def _warn(session_id: str, message: str) -> None:
    with logger.contextualize(session_id=session_id):
        logger.warning(message)


def decode_body(value: str) -> bytes:
    """Decode base64: standard or URL-safe alphabet, padded or not, and with spaces for ``+``."""
    if not value.strip():
        return b""
    standard = value.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("Not base64 of JSON.", field="body") from None


async def parse(raw: bytes) -> Any:
    """Parse as :func:`parse_json` does; a large text does not block the event loop."""
    if len(raw) <= large_json.SMALL_BYTES:
        return parse_json(raw)
    return await large_json.in_background(parse_json, raw, large_json.SwitchableDecoder)


def parse_json(raw: bytes, decoder: type[json.JSONDecoder] = json.JSONDecoder) -> Any:
    """Parse strict JSON in UTF-8, with or without a BOM; an empty text and ``null`` are ``{}``."""
    raw = raw.removeprefix(codecs.BOM_UTF8)
    if not raw.strip():
        return {}
    containers = raw.count(b"[") + raw.count(b"{")
    weight = raw.count(b",") + QUOTE_WEIGHT * raw.count(b'"') + CONTAINER_WEIGHT * containers
    if weight > MAX_WEIGHT and len(raw) > PLATFORM_MAX_BODY_BYTES:
        raise TooLarge(
            f"The JSON has too many parts: more than {MAX_WEIGHT}, where a comma counts 1, a quotation mark "
            f"{QUOTE_WEIGHT} and an array or object {CONTAINER_WEIGHT}.",
            field="body",
        )
    try:
        value = decoder(parse_constant=_no_constant, parse_float=_finite).decode(raw.decode())
    except RecursionError:
        raise Malformed("JSON nested too deeply.", field="body") from None
    except UnicodeDecodeError:
        raise Malformed("Not UTF-8.", field="body") from None
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" starting at")
        raise Malformed(f"Not JSON: {reason} at character {error.pos}.", field="body") from None
    except ValueError as error:
        raise Malformed(f"Not JSON: {error}.", field="body") from None
    return {} if value is None else value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Malformed("A number in the JSON is too large.", field="body")
    return number
