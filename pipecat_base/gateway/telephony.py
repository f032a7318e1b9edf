"""Phone providers' webhooks: each answer sends a call's audio to our WebSocket.

Twilio, Telnyx and Plivo request it for each call. Exotel's Voicebot applet takes the WebSocket's URL, or requests it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from pipecat_base.api import requests
from pipecat_base.auth.signatures import Pairs
from pipecat_base.config.settings import ProviderSettings
from pipecat_base.errors import Malformed, SettingsInvalid, SignatureMissing
from pipecat_base.gateway.addresses import Addresses
from pipecat_base.gateway.providers import PROVIDERS, PhoneProvider, Webhook, recognise
from pipecat_base.logs.logger import logger
from pipecat_base.sessions.registry import SessionRegistry

XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'


class Telephony:
    def __init__(
        self,
        registry: SessionRegistry,
        settings: ProviderSettings,
        addresses: Addresses,
        *,
        max_body_bytes: int,
        needs_tokens: bool,  # streams do: a webhook's response holds one
        stream_path: Callable[[str], str],  # by provider; may hold a token
    ) -> None:
        self._registry = registry
        self._settings = settings
        self._max_body_bytes = max_body_bytes
        self._needs_tokens = needs_tokens
        self._addresses = addresses
        self._stream_path = stream_path

    def router(self) -> APIRouter:
        router = APIRouter(tags=["telephony"])
        router.add_api_route("/", self.recognise, methods=["POST"], summary="A phone provider's webhook")
        for provider in PROVIDERS.values():
            name = f"{provider.name}_webhook"
            for method in ("GET", "POST"):
                router.add_api_route(
                    f"/telephony/{provider.name}",
                    _endpoint(partial(self.answer, provider)),
                    methods=[method],
                    name=name,
                    operation_id=f"{name}_{method.lower()}",
                )
        return router

    async def recognise(self, request: Request) -> Response:
        webhook = await self._read(request)
        provider = recognise(webhook)
        if provider is None:
            raise Malformed(f"Which provider is this? Use /telephony/ and one of {', '.join(PROVIDERS)}.")
        return self._document(provider, webhook, request)

    async def answer(self, provider: PhoneProvider, request: Request) -> Response:
        return self._document(provider, await self._read(request), request)

    def check_handshake(self, provider: str, connection: HTTPConnection) -> bool:
        """False if the provider signs no handshakes, or its secret is not set. Raises a Refusal if not signed."""
        signing = PROVIDERS[provider].signing if provider in PROVIDERS else None
        secret = signing.secret(self._settings) if signing is not None and signing.covers_streams else None
        if signing is None or secret is None:
            return False
        path = connection.scope.get("raw_path", b"").decode("ascii", "replace").split("?")[0]
        query = connection.scope["query_string"].decode("ascii", "replace")
        url = f"{self._addresses.websocket(connection)}{path}{f'?{query}' if query else ''}"
        signing.check(secret, Webhook("GET", url, connection.headers, b"", []))
        return True

    async def _read(self, request: Request) -> Webhook:
        body = await requests.raw_body(request, self._max_body_bytes)
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

    def _document(self, provider: PhoneProvider, webhook: Webhook, request: Request) -> Response:
        self._check(provider, webhook)
        refusal = self._registry.refusal()
        if refusal is not None and provider.busy is not None:
            logger.info(f"A call from {provider.name} is answered busy: {refusal.code}: {refusal.message}")
            return _xml(provider.busy)
        stream = f"{self._addresses.secure_websocket(request)}{self._stream_path(provider.name)}"
        if provider.document is None:
            return JSONResponse({"url": stream})
        return _xml(provider.document(stream, webhook))

    def _check(self, provider: PhoneProvider, webhook: Webhook) -> None:
        signing = provider.signing
        secret = None if signing is None else signing.secret(self._settings)
        if signing is not None and secret is not None:
            signing.check(secret, webhook)
        elif self._needs_tokens:
            reason = f"{provider.name} signs nothing" if signing is None else f"{signing.variable} is not set"
            raise SignatureMissing(f"Streams need tokens here, and {reason}: no token without proof of the sender.")


def _endpoint(answer: Callable[[Request], Any]) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        response: Response = await answer(request)
        return response

    return endpoint


def _xml(content: str) -> Response:
    return Response(f"{XML_DECLARATION}\n<Response>{content}</Response>", media_type="application/xml")


def require(settings: ProviderSettings) -> None:
    """Raises SettingsInvalid at the start if a signature cannot be checked for lack of a package."""
    if settings.telnyx_public_key is not None:
        try:
            import cryptography  # noqa: F401
        except ImportError:
            raise SettingsInvalid(
                ["TELNYX_PUBLIC_KEY: set, but it needs a package: pip install cryptography"]
            ) from None
