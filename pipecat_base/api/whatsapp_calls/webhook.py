"""Meta's webhooks: checks signatures, parses call events.

Signature: ``X-Hub-Signature-256: sha256=<HMAC-SHA256 of the raw body with the app's secret, in hex>``
(developers.facebook.com/docs/graph-api/webhooks/getting-started). Call events:
developers.facebook.com/docs/whatsapp/cloud-api/calling/user-initiated-calls.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipecat_base.errors import SignatureWrong

SIGNATURE = "x-hub-signature-256"
PREFIX = "sha256="
IGNORED_KINDS = ("messages", "statuses", "message_echoes", "errors")  # named in the log


@dataclass(frozen=True)
class Connect:
    """An incoming call. ``fields`` is Meta's object: ``id``, ``from``, ``to``, ``session`` with the SDP, and more."""

    call_id: str
    fields: dict[str, Any]

    @property
    def caller(self) -> str:
        return str(self.fields.get("from") or "")

    @property
    def offer(self) -> dict[str, Any]:
        """The call's SDP, in the format of offers to ``/api/offer``."""
        session = self.fields.get("session")
        session = session if isinstance(session, dict) else {}
        return {"sdp": session.get("sdp"), "type": session.get("sdp_type")}


@dataclass(frozen=True)
class Terminate:
    """The end of a call: the caller hung up, or WhatsApp ended it."""

    call_id: str


@dataclass(frozen=True)
class Other:
    """An event that is not for a bot: a message, a delivery status, an event of a later version."""

    kind: str  # fit for the log: no content of the event


def check_signature(secret: str, body: bytes, signature: str) -> None:
    """Raises SignatureWrong; compares in constant time."""
    expected = PREFIX + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.strip().encode()):
        raise SignatureWrong("The signature is not that of this body with WHATSAPP_APP_SECRET.", field=SIGNATURE)


def events(content: Any) -> Iterator[Connect | Terminate | Other]:
    """Parse a webhook's events, in order. Unknown shapes become :class:`Other`."""
    values = [
        _get(change, "value")
        for entry in _objects(_get(content, "entry"))
        for change in _objects(_get(entry, "changes"))
    ]
    for value in values or [None]:
        calls = list(_objects(_get(value, "calls")))
        yield from map(_call, calls)
        if not calls:
            kinds = [kind for kind in IGNORED_KINDS if _get(value, kind)]
            yield Other(", ".join(kinds) or "an event of an unknown kind")


def _call(fields: dict[str, Any]) -> Connect | Terminate | Other:
    call_id, event = fields.get("id"), fields.get("event")
    if not isinstance(call_id, str) or not call_id:
        return Other("a call without an id")
    if event == "terminate":
        return Terminate(call_id)
    if event != "connect":
        return Other("a call event of another kind")
    if str(fields.get("direction") or "").upper() == "BUSINESS_INITIATED":
        return Other("a call that the business began")
    return Connect(call_id, fields)


def _get(content: Any, name: str) -> Any:
    return content.get(name) if isinstance(content, dict) else None


def _objects(content: Any) -> Iterator[dict[str, Any]]:
    if isinstance(content, list):
        yield from (item for item in content if isinstance(item, dict))
