"""What requests carry: session ids, limits and bodies, decoded or refused."""

from __future__ import annotations

import base64
import binascii
import json
import math
import uuid
from typing import Any

from starlette.requests import HTTPConnection, Request

from pipecat_base.access import callers
from pipecat_base.errors import Malformed, TooLarge
from pipecat_base.logged import logged
from pipecat_base.logs import logger
from pipecat_base.paths import SESSION_ID, SESSION_ID_LENGTH
from pipecat_base.sessions.meetings import Caller

MAX_CONTAINERS = 100_000
"""Of one body's JSON: each costs an object, and all calls wait while it is made."""
MAX_VALUES = 1_000_000
MAX_SECONDS = "x-pcc-max-session-seconds"


def session_id(connection: HTTPConnection) -> str:
    """The platform's id for this session, or a new one when it names none."""
    value = connection.headers.get(SESSION_ID, "").strip()
    if not value:
        return str(uuid.uuid4())
    if len(value) > SESSION_ID_LENGTH or not (value.isascii() and value.isprintable()):
        raise Malformed(
            f"Not a session id of at most {SESSION_ID_LENGTH} printable ASCII characters.", field=SESSION_ID
        )
    return value


def max_seconds(connection: HTTPConnection, session_id: str) -> float | None:
    """The limit that the platform sets for this session, in seconds; None without one.

    A value that is no limit is told in the log and costs nothing else: it is not the caller's doing.
    """
    value = connection.headers.get(MAX_SECONDS)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if math.isfinite(seconds) and seconds > 0:
        return seconds
    _warn(session_id, f"Ignored {MAX_SECONDS}: '{logged(value)}' is not a number of seconds (more than 0)")
    return None


def caller(connection: HTTPConnection) -> Caller:
    """Who has sent this, for logs, reports and traces. Only the use of loopback candidates depends on it."""
    route = callers.route(connection)
    peer = " through ".join(map(str, reversed(route))) or None
    return Caller(peer, connection.headers.get("traceparent"))


async def json_body(request: Request, limit: int) -> Any:
    """The request's JSON, ``{}`` when there is none; refused beyond ``limit`` bytes."""
    return parse_json(await raw_body(request, limit))


async def raw_body(request: Request, limit: int) -> bytes:
    """The request's body as it came; refused beyond ``limit`` bytes."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"The body is larger than {limit} bytes (MAX_BODY_BYTES).", field="body")
        chunks.append(chunk)
    return b"".join(chunks)


def query_body(connection: HTTPConnection, session_id: str) -> Any:
    """The session's body from ``?body=``, ``{}`` when there is none.

    One that cannot be decoded is told in the log and counts as none: a phone is not cut off for a broken parameter.
    """
    try:
        return decode_body(connection.query_params.get("body", ""))
    except Malformed as error:
        _warn(session_id, f"Ignored ?body=: {error.message}")
        return {}


def _warn(session_id: str, message: str) -> None:
    with logger.contextualize(session_id=session_id):
        logger.warning(message)


def decode_body(value: str) -> Any:
    """Decode base64 JSON: standard or URL-safe alphabet, padded or not, and with a space where a ``+`` was."""
    if not value.strip():
        return {}
    standard = value.replace(" ", "+").replace("-", "+").replace("_", "/").rstrip("=")
    try:
        raw = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("Not base64 of JSON.", field="body") from None
    return parse_json(raw)


def parse_json(raw: bytes) -> Any:
    """Strict JSON in UTF-8; nothing and ``null`` are ``{}``."""
    if not raw.strip():
        return {}
    if raw.count(b"[") + raw.count(b"{") > MAX_CONTAINERS or raw.count(b",") > MAX_VALUES:
        raise TooLarge(f"More than {MAX_CONTAINERS} arrays and objects, or {MAX_VALUES} values.", field="body")
    try:
        value = json.loads(raw.decode(), parse_constant=_no_constant, parse_float=_finite)
    except RecursionError:
        raise Malformed("JSON nested too deeply.", field="body") from None
    except UnicodeDecodeError:
        raise Malformed("Not UTF-8.", field="body") from None
    except json.JSONDecodeError as error:
        said = error.msg.removesuffix(" starting at")
        raise Malformed(f"Not JSON: {said} at character {error.pos}.", field="body") from None
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
