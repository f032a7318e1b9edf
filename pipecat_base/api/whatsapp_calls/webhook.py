"""What Meta posts to ``/whatsapp``: signatures checked, calls read.

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
KNOWN = ("messages", "statuses", "message_echoes", "errors")
"""Kinds of events that are named in the log when they are ignored."""


@dataclass(frozen=True)
class Connect:
    """Somebody calls. ``fields`` is Meta's object: ``id``, ``from``, ``to``, ``session`` with the SDP, and more."""

    call_id: str
    fields: dict[str, Any]

    @property
    def caller(self) -> str:
        """The caller's number, as Meta writes it."""
        return str(self.fields.get("from") or "")

    @property
    def offer(self) -> dict[str, Any]:
        """The call's SDP, as an offer to ``/api/offer`` would have it."""
        session = self.fields.get("session")
        session = session if isinstance(session, dict) else {}
        return {"sdp": session.get("sdp"), "type": session.get("sdp_type")}


@dataclass(frozen=True)
class Terminate:
    """A call is over: the caller hung up, or WhatsApp ended it."""

    call_id: str


@dataclass(frozen=True)
class Other:
    """Something that is not for a bot: a message, a delivery status, an event of a later version."""

    kind: str
    """Fit for the log: never the event's content."""


def check_signature(secret: str, body: bytes, signature: str) -> None:
    """Compare in constant time.

    Raises:
        SignatureWrong: it is not this body's, or not made with this secret.
    """
    expected = PREFIX + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected.encode(), signature.strip().encode()):
        raise SignatureWrong("The signature is not that of this body with WHATSAPP_APP_SECRET.", field=SIGNATURE)


def events(content: Any) -> Iterator[Connect | Terminate | Other]:
    """The events of one webhook, in their order. What has another shape is :class:`Other`."""
    values = [
        _get(change, "value")
        for entry in _objects(_get(content, "entry"))
        for change in _objects(_get(entry, "changes"))
    ]
    for value in values or [None]:
        calls = list(_objects(_get(value, "calls")))
        yield from map(_call, calls)
        if not calls:
            kinds = [kind for kind in KNOWN if _get(value, kind)]
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
