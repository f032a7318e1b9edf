"""Differences between phone providers in webhooks and streams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from xml.sax.saxutils import escape, quoteattr

from starlette.datastructures import Headers

from pipecat_base.auth import signatures
from pipecat_base.auth.signatures import Pairs
from pipecat_base.config.settings import ProviderSettings


@dataclass(frozen=True)
class Webhook:
    """A provider's request, not yet verified."""

    method: str
    url: str
    headers: Headers
    body: bytes
    form: Pairs

    def get(self, *names: str) -> str:
        """The first of these fields, empty without one."""
        return next((value for name in names for key, value in self.form if key == name), "")


@dataclass(frozen=True)
class Signing:
    header: str
    variable: str  # the environment variable of its secret
    secret: Callable[[ProviderSettings], str | None]
    check: Callable[[str, Webhook], None]  # raises a Refusal
    covers_streams: bool = False  # the handshakes of its streams are signed too


@dataclass(frozen=True)
class PhoneProvider:
    """Webhook at ``/telephony/NAME``, streams at ``/ws`` or ``/ws/NAME``."""

    name: str
    fields: tuple[str, ...] = ()  # in a webhook, any of them identifies the provider
    document: Callable[[str, Webhook], str] | None = None  # XML with the stream's URL; None answers {"url": URL}
    busy: str | None = None  # XML; for an error status, providers read an apology to the caller
    signing: Signing | None = None


def _twilio(stream: str, webhook: Webhook) -> str:
    # pipecat reads these two parameters from the stream's start.
    numbers = (("from_number", webhook.get("From")), ("to_number", webhook.get("To")))
    parameters = "".join(
        f'<Parameter name="{name}" value={quoteattr(value)}/>'
        for name, value in numbers
        if value.isprintable() and value
    )
    return f"<Connect><Stream url={quoteattr(stream)}>{parameters}</Stream></Connect>"


def _telnyx(stream: str, webhook: Webhook) -> str:
    return f'<Connect><Stream url={quoteattr(stream)} bidirectionalMode="rtp"></Stream></Connect>'


def _plivo(stream: str, webhook: Webhook) -> str:
    attributes = 'bidirectional="true" keepCallAlive="true" contentType="audio/x-mulaw;rate=8000"'
    return f"<Stream {attributes}>{escape(stream)}</Stream>"


def _check_twilio(token: str, webhook: Webhook) -> None:
    signatures.check_twilio(token, webhook.headers, webhook.url, [] if webhook.method == "GET" else webhook.form)


def _check_telnyx(public_key: str, webhook: Webhook) -> None:
    signatures.check_telnyx(public_key, webhook.headers, webhook.body)


def _check_plivo(token: str, webhook: Webhook) -> None:
    form = [] if webhook.method == "GET" else webhook.form
    signatures.check_plivo(token, webhook.headers, webhook.method, webhook.url, form)


REJECT = '<Reject reason="busy"/>'
HANG_UP = '<Hangup reason="busy"/>'

_TWILIO = Signing(signatures.TWILIO, "TWILIO_AUTH_TOKEN", lambda s: s.twilio_auth_token, _check_twilio, True)
_TELNYX = Signing(signatures.TELNYX, "TELNYX_PUBLIC_KEY", lambda s: s.telnyx_public_key, _check_telnyx)
_PLIVO = Signing(signatures.PLIVO, "PLIVO_AUTH_TOKEN", lambda s: s.plivo_auth_token, _check_plivo)

# A new provider also needs its name in server/paths.py, its call id in bot/websocket.py, its secret in
# config/settings.py, and a caller in cli/call/providers.py.
PROVIDERS = {
    provider.name: provider
    for provider in (
        PhoneProvider("twilio", ("CallSid",), _twilio, REJECT, _TWILIO),
        PhoneProvider("telnyx", ("CallControlId", "ConnectionId"), _telnyx, REJECT, _TELNYX),
        PhoneProvider("plivo", ("CallUUID",), _plivo, HANG_UP, _PLIVO),
        PhoneProvider("exotel"),
    )
}


def recognise(webhook: Webhook) -> PhoneProvider | None:
    for provider in PROVIDERS.values():
        if provider.signing is not None and provider.signing.header in webhook.headers:
            return provider
    # Twilio last: Telnyx sends CallSid too.
    return next((provider for provider in reversed(PROVIDERS.values()) if webhook.get(*provider.fields)), None)
