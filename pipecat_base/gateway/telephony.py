"""Phone providers: the document that sends a call's audio to our WebSocket, and who may ask for it.

Twilio, Telnyx and Plivo fetch it from a webhook. Exotel's Voicebot applet takes the WebSocket's address, or fetches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape, quoteattr

from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from pipecat_base.api import requests
from pipecat_base.auth import signatures
from pipecat_base.auth.signatures import Pairs
from pipecat_base.config.settings import Settings
from pipecat_base.errors import Malformed, SettingsInvalid, SignatureMissing
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.logs.logger import logger
from pipecat_base.server.paths import PHONES
from pipecat_base.sessions.registry import SessionRegistry

PROVIDERS = PHONES
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
BUSY = {
    "twilio": '<Reject reason="busy"/>',
    "telnyx": '<Reject reason="busy"/>',
    "plivo": '<Hangup reason="busy"/>',
}
SIGNED_BY = {signatures.TWILIO: "twilio", signatures.TELNYX: "telnyx", signatures.PLIVO: "plivo"}


@dataclass(frozen=True)
class Webhook:
    """What a provider sent. Not from whom: that is for the signature to say."""

    method: str
    url: str
    headers: Headers
    body: bytes
    form: Pairs

    def get(self, *names: str) -> str:
        """The first of these fields, empty without one."""
        return next((value for name in names for key, value in self.form if key == name), "")


class Telephony:
    """Answers webhooks.

    Args:
        stream_path: Gives the path of the stream for a provider's call; it may hold a token.
    """

    def __init__(
        self,
        registry: SessionRegistry,
        settings: Settings,
        addresses: Addresses,
        *,
        stream_path: Callable[[str], str],
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._addresses = addresses
        self._stream_path = stream_path

    def router(self) -> APIRouter:
        """The routes to serve."""
        router = APIRouter(tags=["telephony"])
        router.add_api_route("/", self.recognise, methods=["POST"], summary="A phone provider's webhook")
        for provider in PROVIDERS:
            answer = partial(self.answer, provider)
            name = f"{provider}_webhook"
            path = f"/telephony/{provider}"
            for method in ("GET", "POST"):
                router.add_api_route(
                    path, _endpoint(answer), methods=[method], name=name, operation_id=f"{name}_{method.lower()}"
                )
        return router

    async def recognise(self, request: Request) -> Response:
        """The answer to a provider that its request gives away."""
        webhook = await self._read(request)
        provider = _recognised(webhook)
        if provider is None:
            raise Malformed(f"Which provider is this? Use /telephony/ and one of {', '.join(PROVIDERS)}.")
        return self._document(provider, webhook, request)

    async def answer(self, provider: str, request: Request) -> Response:
        """The answer to a provider that the path names."""
        return self._document(provider, await self._read(request), request)

    def check_handshake(self, provider: str, connection: HTTPConnection) -> bool:
        """Whether a stream is known to be the provider's. Only Twilio signs these, and only with its token set here.

        Raises:
            Refusal: it should be signed and is not.
        """
        token = self._settings.providers.twilio_auth_token
        if provider != "twilio" or token is None:
            return False
        path = connection.scope.get("raw_path", b"").decode("ascii", "replace").split("?")[0]
        query = connection.scope["query_string"].decode("ascii", "replace")
        url = f"{self._addresses.websocket(connection)}{path}{f'?{query}' if query else ''}"
        signatures.check_twilio(token, connection.headers, url, [])
        return True

    async def _read(self, request: Request) -> Webhook:
        body = await requests.raw_body(request, self._settings.limits.max_body_bytes)
        form: Pairs = []
        if request.headers.get("content-type", "").partition(";")[0].strip() == "application/x-www-form-urlencoded":
            try:
                form = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=200)
            except ValueError:
                raise Malformed("Not a form.", field="body") from None
        path = request.scope.get("raw_path", b"").decode("ascii", "replace").split("?")[0]
        query = f"?{request.url.query}" if request.url.query else ""
        url = f"{self._addresses.http(request)}{path}{query}"
        if request.method == "GET":
            form = list(request.query_params.multi_items())
        return Webhook(request.method, url, request.headers, body, form)

    def _document(self, provider: str, webhook: Webhook, request: Request) -> Response:
        self._check(provider, webhook)
        refusal = self._registry.refusal()
        if refusal is not None and provider in BUSY:
            # An error status would have the provider read an apology of its own to the caller.
            logger.info(f"A call from {provider} is answered busy: {refusal.code}: {refusal.message}")
            return _xml(BUSY[provider])
        stream = f"{self._addresses.secure_websocket(request)}{self._stream_path(provider)}"
        if provider == "exotel":
            return JSONResponse({"url": stream})
        return _xml(_DOCUMENTS[provider](stream, webhook))

    def _check(self, provider: str, webhook: Webhook) -> None:
        settings = self._settings
        signed_form = [] if webhook.method == "GET" else webhook.form
        if provider == "twilio" and settings.providers.twilio_auth_token is not None:
            signatures.check_twilio(settings.providers.twilio_auth_token, webhook.headers, webhook.url, signed_form)
        elif provider == "plivo" and settings.providers.plivo_auth_token is not None:
            token = settings.providers.plivo_auth_token
            signatures.check_plivo(token, webhook.headers, webhook.method, webhook.url, signed_form)
        elif provider == "telnyx" and settings.providers.telnyx_public_key is not None:
            signatures.check_telnyx(settings.providers.telnyx_public_key, webhook.headers, webhook.body)
        elif settings.websockets.auth == "token":
            # The answer holds a token: not for everyone.
            reason = f"{_SECRETS[provider]} is not set" if provider in _SECRETS else f"{provider} signs nothing"
            raise SignatureMissing(f"Streams need tokens here, and {reason}: nobody can tell who asks for one.")


def _endpoint(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        response: Response = await answer(request)
        return response

    return endpoint


def _recognised(webhook: Webhook) -> str | None:
    for header, provider in SIGNED_BY.items():
        if header in webhook.headers:
            return provider
    if webhook.get("CallUUID"):
        return "plivo"
    if webhook.get("CallControlId", "ConnectionId"):
        return "telnyx"
    return "twilio" if webhook.get("CallSid") else None


def _twilio(stream: str, webhook: Webhook) -> str:
    # pipecat reads these two from the stream's start.
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


def _xml(content: str) -> Response:
    return Response(f"{DECLARATION}\n<Response>{content}</Response>", media_type="application/xml")


def require(settings: Settings) -> None:
    """Say at the start what a signature could not be checked without."""
    if settings.providers.telnyx_public_key is not None:
        try:
            import cryptography  # noqa: F401
        except ImportError:
            raise SettingsInvalid(
                ["TELNYX_PUBLIC_KEY: set, but it needs a package: pip install cryptography"]
            ) from None


_DOCUMENTS: dict[str, Callable[[str, Webhook], str]] = {"twilio": _twilio, "telnyx": _telnyx, "plivo": _plivo}
_SECRETS = {
    "twilio": "TWILIO_AUTH_TOKEN",
    "plivo": "PLIVO_AUTH_TOKEN",
    "telnyx": "TELNYX_PUBLIC_KEY",
}
