"""What a gateway may answer to whatever comes: shared by both fuzzers, so nothing but the standard library is used."""

from __future__ import annotations

import json
from xml.etree import ElementTree

ON_PURPOSE = {
    501: {"not_supported"},
    502: {"not_reached"},
    503: {"not_running"},
    504: {"no_offer"},
}
"""Statuses of 500 and more that the gateway means, and their reasons. It neither starts nor drains meanwhile."""
BODILESS = (204, 304)
NO_REQUEST = (b"Invalid HTTP request received.", b"Failed to open a WebSocket connection: ")
"""What uvicorn and websockets say before there is a request for the gateway."""


def objection(method: str, path: str, status: int, content_type: str, body: bytes) -> str | None:
    """What is wrong with an answer; None when nothing is."""
    if status >= 500 and status not in ON_PURPOSE:
        return "nothing that the gateway means"
    if method == "HEAD" or status in BODILESS:
        return None
    if status >= 500 and _reason(body) not in ON_PURPOSE[status]:
        return f"not one of the reasons for {status}"
    if status == 400 and body.startswith(NO_REQUEST):
        return None
    if content_type.startswith("application/xml"):
        return _no_xml(body)
    if content_type == "application/json":
        return _no_json(body)
    if status == 200 and (path == "/" or "/sessions/" in path or path.endswith("/whatsapp")):
        return None  # the page, the bot's own answer, Meta's challenge
    return f"{content_type!r} is neither JSON nor XML"


def _reason(body: bytes) -> str | None:
    try:
        content = json.loads(body)
    except ValueError:
        return None
    if not isinstance(content, dict):
        return None
    error = content.get("error")
    reason = error.get("code") if isinstance(error, dict) else content.get("reason")
    return reason if isinstance(reason, str) else None


def _no_json(body: bytes) -> str | None:
    try:
        json.loads(body)
    except ValueError as error:
        return f"its JSON does not parse: {error}"
    return None


def _no_xml(body: bytes) -> str | None:
    try:
        ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        return f"its XML does not parse: {error}"
    return None
