"""Separates requests to the gateway from requests to the pod behind it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from pipecat_base.errors import Malformed
from pipecat_base.server.error_responses import send_refusal
from pipecat_base.server.paths import STARTS
from pipecat_base.server.request_path import check_slashes


class Dispatcher:
    """Sends requests to ``gateway``, which adds CORS, or to ``direct``. ``ours`` are the gateway's single routes."""

    def __init__(
        self,
        gateway: ASGIApp,
        direct: ASGIApp,
        routes: Sequence[BaseRoute],
        bots_routes: Sequence[BaseRoute],
        ours: Sequence[BaseRoute],
    ) -> None:
        self._gateway = gateway
        self._direct = direct
        self._routes = routes
        self._bots_routes = bots_routes
        self._ours = ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            check_slashes(scope, self._ours)
        except Malformed as refusal:
            await send_refusal(refusal, scope, receive, send)
            return
        matches = [route.matches(scope)[0] for route in self._routes]
        if scope["path"] in STARTS or Match.FULL in matches:
            is_ours = True
        elif Match.PARTIAL in matches:  # another method: a preflight, or the bot's own
            is_ours = not any(route.matches(scope)[0] is Match.FULL for route in self._bots_routes)
        else:
            is_ours = False
        await (self._gateway if is_ours else self._direct)(scope, receive, send)
