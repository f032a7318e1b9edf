"""The body that the bot receives on a WhatsApp call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipecat_base.errors import Malformed


def body_of(fields: Mapping[str, Any]) -> Any:
    """An object of the type that pipecat's own runner passes. Raises Malformed for a field of another type."""
    from pipecat.transports.whatsapp.api import WhatsAppConnectCall
    from pydantic import ValidationError

    # pipecat requires fields that Meta omits from some events.
    optional = {"from": "", "to": "", "timestamp": "", "direction": None}
    try:
        return WhatsAppConnectCall.model_validate({**optional, **fields})
    except ValidationError:
        raise Malformed("Fields of the call have other types than Meta documents.", field="calls") from None
